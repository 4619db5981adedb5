"""Image processing: arrays in, arrays out."""
