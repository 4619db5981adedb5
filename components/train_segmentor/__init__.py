"""The stage `train_segmentor`."""
