"""Artifact stores: a local folder, and the object stores of the clouds."""
