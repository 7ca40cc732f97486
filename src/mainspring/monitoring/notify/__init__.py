"""Notifications: which messages go where, each exactly once, few enough to be read."""
