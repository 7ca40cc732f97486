"""What Mainspring asks of infrastructure: one Protocol per file, each with an embedded default among the adapters."""
