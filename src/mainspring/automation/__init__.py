"""Automation: triggers that start pipelines, and the controller that closes the loop through the event log."""
