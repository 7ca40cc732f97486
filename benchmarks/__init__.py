"""Every figure that the documentation claims, as a command: `make bench`, or ``python -m benchmarks NAME …``."""
