"""Monitoring: windows of predictions measured against limits, and the alerts that follow."""
