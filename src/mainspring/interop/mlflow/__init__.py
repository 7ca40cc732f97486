"""MLflow's REST protocol over the room `tracking`: the unmodified client works against this server."""
