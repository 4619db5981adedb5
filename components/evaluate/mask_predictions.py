"""Get the predictions to score from a segmentor, or from a LabelSet that `infer` wrote."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.evaluate.component import Evaluate
from shared.artifacts.image_set import ImageEntry
from shared.artifacts.label_set import LabelReader
from shared.artifacts.postprocessing import resolve
from shared.imaging.resize import enlarge, reduce_labels
from shared.models.config import SegmentorConfig
from shared.system.devices import device
from shared.system.errors import ArtifactError


@dataclass(frozen=True)
class LabelledImage:
    """An image and its truth."""

    entry: ImageEntry
    image: np.ndarray
    """(H, W, C)"""
    truth: np.ndarray
    """(H, W) label image."""

    @property
    def key(self) -> str:
        """Key of the image."""
        return self.entry.key


@dataclass(frozen=True)
class Prediction:
    """The prediction of an image."""

    labels: np.ndarray
    """(H, W) label image."""
    probability: np.ndarray | None = None
    """(H, W) float32 in [0, 1], of the foreground; None where it is not known."""


Predict = Callable[[LabelledImage], Callable[[], Prediction]]
"""Predicts one image after another. The function that it returns makes the instances, in any thread."""


def segmentor_predictions(stage: Evaluate, model: Path) -> Predict:
    """Predict with a segmentor."""
    from shared.models.runtimes.runtime import open_model
    from shared.models.tiled_inference import TiledPredictor, predict_at_scale
    from shared.targets import TARGETS

    segmentor = open_model(model, runtime=stage.runtime, device=device())
    config = segmentor.config
    assert isinstance(config, SegmentorConfig)
    predictor = TiledPredictor(segmentor.network, config.input, len(config.maps), stage.tile, stage.batch_size)
    target = TARGETS[config.architecture.target]
    settings = resolve(stage, config.postprocessing)

    def predict(item: LabelledImage) -> Callable[[], Prediction]:
        factor = max(1, config.input.magnification // item.entry.magnification)
        um_per_px = item.entry.enlarged(factor).um_per_px if stage.rescale == "um_per_px" else None
        image = enlarge(item.image, factor)
        maps = predict_at_scale(predictor, image, um_per_px)
        probability = reduce_labels(target.probability(maps, settings), factor).copy()  # decoding overwrites the map

        def decode() -> Prediction:
            return Prediction(reduce_labels(target.decode(maps, image, settings).labels, factor), probability)

        return decode

    return predict


def stored_predictions(reader: LabelReader) -> Predict:
    """Read a LabelSet. Its function raises ArtifactError where an image has no prediction or one of another size.

    An image that the classifier found negative holds nothing.
    """
    classes, predictions = reader.image_classes(), reader.folder

    def read(item: LabelledImage) -> Prediction:
        if item.key not in reader.entries and item.key in classes and classes[item.key].outcome == "negative":
            return Prediction(np.zeros_like(item.truth))
        if item.key not in reader.entries:
            raise ArtifactError(
                f"--predictions: {predictions}: no label image of {item.key!r}; run infer on the images given here"
            )
        labels = reader.mask(item.key)
        if labels.shape != item.truth.shape:
            raise ArtifactError(
                f"--predictions: {predictions}: {item.key!r} is {labels.shape}, its truth {item.truth.shape}; "
                "run infer on the images given here"
            )
        return Prediction(labels)

    return lambda item: lambda: read(item)
