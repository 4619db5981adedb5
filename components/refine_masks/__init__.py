"""The stage `refine_masks`."""
