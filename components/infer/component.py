"""Declaration of `infer`."""

from typing import ClassVar, get_args

from pydantic import Field

from shared.artifacts.kinds import Files, ImageSet, LabelSet, Model
from shared.artifacts.postprocessing import PostProcessingOptions
from shared.exporters import Format
from shared.models.prediction_options import PredictionOptions
from shared.stage.declaration import In, Out, Stage


class Infer(PostProcessingOptions, PredictionOptions, Stage):
    """Find the cells of every image, and write them as files that other programs open."""

    image: ClassVar[str] = "torch"
    headlines: ClassVar[dict[str, str]] = {"images": "images", "cells": "cells found"}

    images: In[ImageSet]
    """Images to predict. A plain folder of images is accepted."""
    segmentor: In[Model]
    """Finds the instances."""
    predictions: Out[LabelSet]
    """Instances, each with a score: its mean foreground probability. Origin prediction."""
    files: Out[Files]
    """The predictions in the formats of `formats`, such as `labels/KEY.tif`, `overlays/KEY.png`, `cells.csv`."""
    formats: list[Format] = Field([*get_args(Format)])
    """File formats to write into `files`."""
    block: int = Field(4096, ge=256, multiple_of=16)
    """Rows that are processed at a time, in px. The network's maps of images with a longer side are kept on disk. The
    result does not depend on it."""
