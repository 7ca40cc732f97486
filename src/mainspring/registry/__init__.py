"""Models and their versions: what may be deployed, what it accepts, what it was made of."""
