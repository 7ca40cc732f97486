"""Models on devices: signed bundles, what a fleet is to run, and what devices tell when they are online."""
