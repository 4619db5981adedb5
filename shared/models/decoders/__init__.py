"""Decoders: networks that turn feature maps into maps of the image's size."""
