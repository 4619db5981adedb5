"""The stage `select_model`."""
