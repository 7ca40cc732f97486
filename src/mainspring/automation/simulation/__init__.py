"""Simulation: policies tried side by side on a use case's past, with the real rules and a fake clock."""
