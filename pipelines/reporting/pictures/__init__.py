"""Pictures of a run: what its artifacts hold, drawn on images."""
