"""Execute a compiled graph on one machine."""
