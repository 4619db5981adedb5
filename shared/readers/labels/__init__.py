"""Labels of images: label images and annotation files, and which image they belong to."""
