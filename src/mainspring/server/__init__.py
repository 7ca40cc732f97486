"""The HTTP face: routes derived from operations, artifacts, events as a live stream, the pages."""
