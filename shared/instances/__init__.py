"""Instances from foreground probability and distance maps."""
