"""Automation: rules of what is done when something happens, and the controller that closes the loop by events."""
