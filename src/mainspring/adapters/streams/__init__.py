"""Streams of messages, one broker per file."""
