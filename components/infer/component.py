"""Declaration of `infer`."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from shared.artifacts.kinds import Files, ImageSet, LabelSet, Model
from shared.artifacts.postprocessing import PostProcessingOptions
from shared.stage.declaration import In, Out, Stage

Format = Literal["label_tiff", "foreground_png", "overlay_png", "cells_csv", "coco_json"]


class Infer(PostProcessingOptions, Stage):
    """Find the cells of every image, and write them as files that other programs open."""

    image: ClassVar[str] = "torch"
    headlines: ClassVar[dict[str, str]] = {"images": "images", "cells": "cells found"}

    images: In[ImageSet]
    """Images to predict on; a plain folder will do."""
    model: In[Model]
    """A segmentor."""
    predictions: Out[LabelSet]
    """The instances with a score for each, its mean foreground probability; origin prediction."""
    files: Out[Files]
    """The same for people: `labels/KEY.tif`, `semantic/KEY.png`, `overlays/KEY.png`, `cells.csv`, `coco.json`."""
    formats: list[Format] = ["label_tiff", "foreground_png", "overlay_png", "cells_csv", "coco_json"]
    """Which of these files are written."""
    batch_size: PositiveInt = 16
    """Tiles in a forward pass."""
    tile: int = Field(128, ge=64, multiple_of=16)
    """px on the side of a tile as the network sees it, halo included; up to a quarter more where that fits an image."""
    block: int = Field(4096, ge=256, multiple_of=16)
    """px; the maps of larger images are kept on disk and read so many rows at a time. Same pixels either way."""
    rescale: Literal["never", "um_per_px"] = "never"
    """um_per_px: resample each image to the pixel size of the model's training images before it is predicted, where
    both are known. never: predict images as they are."""
