"""Notifiers: ways to tell people and programs."""
