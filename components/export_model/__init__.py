"""The stage `export_model`."""
