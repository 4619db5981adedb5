"""Decode image files, one format per module; `image_file` chooses the format."""
