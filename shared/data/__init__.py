"""Crops, augmentation and sampling for training."""
