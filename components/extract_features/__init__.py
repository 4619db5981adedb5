"""The stage `extract_features`."""
