"""The page of `train_segmentor`."""

import numpy as np

from components.train_segmentor.calibration import Tuned
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.imaging.overlays import outline, to_rgb8
from shared.imaging.tiling import centre_crop
from shared.models.config import SegmentorConfig
from shared.models.tiled_inference import TiledPredictor
from shared.reporting.page import Page
from shared.targets import TARGETS
from shared.training.history import History, plot_points

MAX_PANELS = 3
SHOWN_PX = 384
"""Side of the shown middle of an image, px."""


def make_page(
    history: History,
    tuned: Tuned | None,
    predictor: TiledPredictor,
    config: SegmentorConfig,
    reader: ImageReader,
    labels: LabelReader,
    keys: list[str],
) -> Page:
    """Page of the loss, of what tuning tried, and of some images: input, label, prediction."""
    page = Page("train_segmentor")
    page.plot("loss", {"train": plot_points(history)}, x="step", y="loss")
    if tuned is not None:
        page.heading("Post-processing")
        chosen = ", ".join(f"{name} {getattr(config.postprocessing, name)}" for name in tuned.names)
        page.text(f"Chosen by Dice + F1 at IoU 0.5 on labelled images ({tuned.images}): {chosen}.")
        for name, points in tuned.curves().items():
            page.plot(name, {"Dice + F1": points}, x=name, y="Dice + F1")
    target = TARGETS[config.architecture.target]
    for key in evenly_spaced(keys, MAX_PANELS):
        part, label = centre_crop(reader.read(key), SHOWN_PX), centre_crop(labels.mask(key), SHOWN_PX)
        probability = target.probability(predictor(part), config.postprocessing)
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
