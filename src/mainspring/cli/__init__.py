"""The command line: commands derived from operations, and the few that belong to a person at a terminal."""
