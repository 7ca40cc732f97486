"""Words without I/O: what the rest of Mainspring is said in (standard library and msgspec only)."""
