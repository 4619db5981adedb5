"""What a mask looks like on its image: sizes, shapes, contrast, and an estimate of its quality without labels."""
