"""Classes of whole images that a file lists, by the image's name."""
