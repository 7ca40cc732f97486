"""Serving: the inference server (load, route, predict, log) and what reads its prediction log."""
