"""Crops, augmentation and sampling of training images."""
