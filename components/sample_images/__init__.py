"""The stage `sample_images`."""
