"""Other systems' protocols and formats, spoken over our own rooms."""
