"""Contract suites: what every adapter of a port, ours or a stranger's, must pass."""
