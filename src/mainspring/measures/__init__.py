"""Numbers about data and models: pure functions on Polars and NumPy, without I/O."""
