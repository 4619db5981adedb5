"""Where the predictions that are scored come from: a segmentor, or a LabelSet that `infer` wrote."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.evaluate.component import Evaluate
from shared.artifacts.image_set import ImageEntry
from shared.artifacts.label_set import LabelReader
from shared.artifacts.postprocessing import resolve
from shared.system.devices import device
from shared.system.errors import ArtifactError


@dataclass
class Case:
    """An image and its truth."""

    entry: ImageEntry
    image: np.ndarray
    """(H, W, C)"""
    true: np.ndarray
    """(H, W) label image"""

    @property
    def key(self) -> str:
        """Key of the image."""
        return self.entry.key


@dataclass
class Found:
    """What was predicted of an image."""

    labels: np.ndarray
    """(H, W) label image"""
    probability: np.ndarray | None = None
    """(H, W) float32 in [0, 1], of the foreground, where it is known."""


Find = Callable[[Case], Callable[[], Found]]
"""Predicts. It is called for one image after another; what it returns makes the instances, in any thread."""


def of_model(stage: Evaluate, model: Path) -> Find:
    """Predict with a segmentor."""
    from shared.models.load import load_model
    from shared.models.segmentor import Segmentor
    from shared.models.tiled_inference import TiledPredictor, predict_at_scale
    from shared.targets import load_target

    segmentor = load_model(model, Segmentor)
    predictor = TiledPredictor.of(segmentor, device(), tile=stage.tile, batch_size=stage.batch_size)
    target = load_target(segmentor.config.architecture.target)
    settings = resolve(stage, segmentor.config.postprocessing)

    def find(case: Case) -> Callable[[], Found]:
        scale = case.entry.um_per_px if stage.rescale == "um_per_px" else None
        maps = predict_at_scale(predictor, case.image, scale)
        probability = maps[0].copy()  # decoding overwrites the map
        return lambda: Found(target.decode(maps, case.image, settings).labels, probability)

    return find


def of_label_set(predictions: Path) -> Find:
    """Read predictions. Raises ArtifactError where an image has none, or one of another size."""
    reader = LabelReader(predictions)

    def read(case: Case) -> Found:
        if case.key not in reader.entries:
            raise ArtifactError(f"--predictions: {predictions}: nothing on image {case.key!r}; predict these images")
        labels = reader.mask(case.key)
        if labels.shape != case.true.shape:
            raise ArtifactError(
                f"--predictions: {predictions}: image {case.key!r} is {labels.shape}, its truth {case.true.shape}"
            )
        return Found(labels)

    return lambda case: lambda: read(case)
