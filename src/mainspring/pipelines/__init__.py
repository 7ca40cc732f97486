"""Pipelines: plain functions as steps, recorded runs, a cache by content, resume after a crash."""
