"""The stage `train_detector`."""
