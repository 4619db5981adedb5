"""The page of `train_segmentor`."""

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LabelReader
from shared.imaging.overlays import outline, to_rgb8
from shared.imaging.tiling import middle
from shared.models.segmentor import Segmentor, SegmentorConfig
from shared.models.tiled_inference import predict
from shared.reporting.page import Page
from shared.training.checkpoint import History

PANELS = 3
SIDE = 384
"""px, of the middle part of an image that is shown."""
TILE = 128


def make_page(
    history: History,
    segmentor: Segmentor,
    config: SegmentorConfig,
    reader: ImageReader,
    labels: LabelReader,
    keys: list[str],
    where: str,
) -> Page:
    """Loss, and input, pseudo-mask and prediction side by side."""
    page = Page("train_segmentor")
    every = max(1, len(history) // 300)
    page.plot("loss", {"train": history[::every]}, x="step", y="loss")
    for i in np.linspace(0, len(keys) - 1, min(PANELS, len(keys))).round():
        key = keys[int(i)]
        image = reader.read(key)
        part, pseudo = middle(image, SIDE), middle(labels.mask(key), SIDE)
        probability = predict(segmentor, config, part, tile=TILE, batch_size=8, device=where)
        rgb8 = to_rgb8(part)
        page.heading(key)
        page.images(
            [
                (rgb8, "input"),
                (outline(rgb8, (pseudo > 0).astype(np.uint8), width=2), "pseudo-mask"),
                (np.rint(probability * 255).astype(np.uint8), "predicted probability"),
                (outline(rgb8, (probability >= 0.5).astype(np.uint8), width=2), "prediction"),
            ]
        )
    return page
