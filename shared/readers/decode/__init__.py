"""Decode image files, one format in each module."""
