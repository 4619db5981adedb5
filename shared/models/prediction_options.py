"""Declare the parameters of stages that apply a network to images tile by tile.

Declarations import this module, so it loads no numpy.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class TilingOptions(BaseModel):
    """How images are cut into tiles for a network."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    tile: int = Field(128, ge=64, multiple_of=16)
    """Side of a tile in px as the network sees it, halo included. Enlarged by up to a quarter where that needs fewer
    pixels for an image."""
    batch_size: PositiveInt = 16
    """Tiles in a forward pass."""


class PredictionOptions(TilingOptions):
    """How images are predicted."""

    rescale: Literal["never", "um_per_px"] = "never"
    """um_per_px: resample each image to the pixel size of the model's training images before prediction, where both
    pixel sizes are known. never: predict images as they are."""
