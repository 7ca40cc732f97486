"""Tracking: runs with their parameters, metrics and artifacts, and what is needed to make them again."""
