"""Measure average precision on held-out images, and choose the score threshold."""

from dataclasses import dataclass
from functools import cached_property

from components.train_detector.labelled_images import LabelledImages
from shared.artifacts.annotation import Annotation
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.metrics.boxes import ALL, PrecisionRecall, best_threshold, box_metrics, precision_recall
from shared.models.box_predictor import BoxPredictor
from shared.models.detector import Detector

MAX_IMAGES = 200
"""Held-out images that are scored during the training, evenly spaced."""


@dataclass(frozen=True)
class Predictions:
    """Objects that a detector found in held-out images, with the truth."""

    truth: dict[str, list[Annotation]]
    found: dict[str, list[Annotation]]

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Average precision, see `shared.metrics.boxes.box_metrics`."""
        return box_metrics(self.truth, self.found)

    @cached_property
    def curves(self) -> dict[str, PrecisionRecall]:
        """Precision-recall curves at IoU 0.5 by class, and of all."""
        return precision_recall(self.truth, self.found)

    @cached_property
    def threshold(self) -> tuple[float, float]:
        """Score threshold of the highest F1 over all classes, and that F1."""
        return best_threshold(self.curves[ALL]) if self.curves else (0.5, 0.0)


class Validation:
    """Held-out images and their objects."""

    def __init__(self, reader: ImageReader, labelled: LabelledImages, where: str) -> None:
        self.reader, self.labelled, self.where = reader, labelled, where

    def metrics(self, detector: Detector) -> dict[str, float]:
        """Average precision on some of the images, with the detector as it is."""
        return self.predict(detector, evenly_spaced(self.labelled.valid, MAX_IMAGES)).metrics

    def predict(self, detector: Detector, keys: list[str]) -> Predictions:
        """Find the objects of some images, of any score."""
        was_training, names = detector.training, detector.config.architecture.classes
        predictor = BoxPredictor.of(detector.eval(), self.where)
        found = {key: predictor(self.reader.read(key)).annotations(names) for key in keys}
        detector.train(was_training)
        return Predictions({key: self.labelled.objects[key] for key in keys}, found)
