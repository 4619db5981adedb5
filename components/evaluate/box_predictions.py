"""Get the boxes to score from a detector, or from a LabelSet that `infer` wrote."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from components.evaluate.box_truth import BoxSet, boxes_of
from components.evaluate.component import Evaluate
from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LabelReader
from shared.metrics.boxes import categories
from shared.models.config import DetectorConfig
from shared.system.devices import device, threads
from shared.system.errors import ArtifactError
from shared.system.parallel import in_order
from shared.system.progress import track

_BYTES_PER_PIXEL = 8


@dataclass(frozen=True)
class PredictedBoxes:
    """Boxes of some images."""

    boxes: BoxSet
    classes: set[str]
    """Classes that can be predicted."""
    score_threshold: float
    """Score from which on the model reports a box. Of stored boxes all are reported, so it is 0."""


def detector_predictions(stage: Evaluate, model: Path, images: ImageReader, keys: list[str]) -> PredictedBoxes:
    """Find the boxes of images with a detector, those of low scores as well.

    Scores have the four digits that a LabelSet stores, so that predictions score as the model that made them.
    """
    from shared.models.box_predictor import BoxPredictor
    from shared.models.runtimes.runtime import open_model

    detector = open_model(model, runtime=stage.runtime, device=device())
    config = detector.config
    assert isinstance(config, DetectorConfig)
    names = list(config.architecture.classes)
    predictor = BoxPredictor(detector.network, config, batch_size=stage.batch_size)
    with ThreadPoolExecutor(threads()) as pool:  # reads images ahead
        read = in_order(pool, images.read, keys, lambda key: _BYTES_PER_PIXEL * images.pixel_count(key))
        found = {}
        for key, image in zip(keys, track(read, "detect", len(keys)), strict=True):
            um_per_px = images.entries[key].um_per_px if stage.rescale == "um_per_px" else None
            items = predictor(image, um_per_px).annotations(names)
            found[key] = [replace(item, score=round(item.score or 0.0, 4)) for item in items]
    return PredictedBoxes(found, set(names), config.postprocessing.score_threshold)


def stored_boxes(predictions: LabelReader, keys: list[str]) -> PredictedBoxes:
    """Read the boxes of a LabelSet. Raises ArtifactError where an image was not predicted.

    An image that the classifier found negative holds no boxes.
    """
    found, classes = boxes_of(predictions), predictions.image_classes()
    for key in keys:
        negative = key in classes and classes[key].outcome == "negative"
        if key not in found and not negative:
            raise ArtifactError(
                f"--predictions: {predictions.folder}: no boxes of {key!r}; run infer on the images given here"
            )
    return PredictedBoxes({key: found.get(key, []) for key in keys}, set(categories(found)), 0.0)
