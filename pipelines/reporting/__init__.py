"""The page of a run, and `cytoloom ui`."""
