"""The stage `train_classifier`."""
