"""Read plain images and annotations into artifacts."""
