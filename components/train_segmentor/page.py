"""The page of `train_segmentor`."""

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.imaging.overlays import outline, to_rgb8
from shared.imaging.tiling import middle
from shared.models.tiled_inference import TiledPredictor
from shared.reporting.page import Page
from shared.training.checkpoint import History
from shared.training.history import thinned

PANELS = 3
SIDE = 384
"""px, of the middle part of an image that is shown."""


def make_page(
    history: History, predictor: TiledPredictor, reader: ImageReader, labels: LabelReader, keys: list[str]
) -> Page:
    """The loss, and some images: input, label, prediction."""
    page = Page("train_segmentor")
    page.plot("loss", {"train": thinned(history)}, x="step", y="loss")
    for key in evenly_spaced(keys, PANELS):
        part, label = middle(reader.read(key), SIDE), middle(labels.mask(key), SIDE)
        probability = predictor(part)[0]
        rgb8 = to_rgb8(part)
        page.heading(key)
        page.images(
            [
                (rgb8, "input"),
                (outline(rgb8, (label > 0).astype(np.uint8), width=2), "label"),
                (np.rint(probability * 255).astype(np.uint8), "predicted probability"),
                (outline(rgb8, (probability >= 0.5).astype(np.uint8), width=2), "prediction"),
            ]
        )
    return page
