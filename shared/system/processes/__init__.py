"""Processes: that end with their parent, that read for it within limits, and the signals that end them."""
