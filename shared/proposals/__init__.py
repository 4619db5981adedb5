"""Classical foreground proposals: thresholds of intensity, stain and texture."""
