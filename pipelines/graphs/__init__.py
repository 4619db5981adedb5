"""The graphs: which stage feeds which."""
