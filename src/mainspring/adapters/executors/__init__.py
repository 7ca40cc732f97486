"""Executors of pipeline steps."""
