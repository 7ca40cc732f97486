"""Data: datasets and their versions, what is expected of them, how they look, and how they differ."""
