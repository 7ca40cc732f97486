"""Use cases: the problem, who owns it, and the KPIs that say whether the model is worth having."""
