"""Delivery: the project as code, compared with what exists and applied to it."""
