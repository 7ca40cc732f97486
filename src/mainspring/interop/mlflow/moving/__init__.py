"""Moving from MLflow and back: what it keeps is read from a server, a database or a folder, and written elsewhere."""
