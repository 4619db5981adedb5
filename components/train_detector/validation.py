"""Measure average precision on held-out images, and choose the post-processing."""

from dataclasses import dataclass
from functools import cached_property

from components.train_detector.labelled_images import LabelledImages
from shared.artifacts.annotation import Annotation
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.instances.detections import Detections, suppress_duplicates
from shared.metrics.boxes import ALL, PrecisionRecall, best_threshold, box_metrics, precision_recall
from shared.models.box_predictor import BoxPredictor
from shared.models.config import DetectorPostProcessing
from shared.models.detector import Detector

MAX_IMAGES = 200
"""Held-out images that are scored during the training, evenly spaced."""
TRAINING_NMS_IOU = 0.8
"""IoU of the non-maximum suppression in the scores during the training."""
NMS_IOUS = (None, 0.8, 0.7, 0.6, 0.5, 0.9)
"""IoUs of the non-maximum suppression that are tried, None for none; the first of equally good ones is taken."""


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
        found = self._detect(detector, evenly_spaced(self.labelled.valid, MAX_IMAGES))
        return self._predictions(found, TRAINING_NMS_IOU).metrics

    def calibrate(self, detector: Detector) -> tuple[DetectorPostProcessing, Predictions]:
        """Choose suppression and score threshold of the highest F1; return them, and what they find, of any score."""
        found = self._detect(detector, self.labelled.valid)
        tried = {iou: self._predictions(found, iou) for iou in NMS_IOUS}
        best = max(tried, key=lambda iou: tried[iou].threshold[1])
        changes = {"nms_iou": best, "score_threshold": round(tried[best].threshold[0], 4)}
        return detector.config.postprocessing.model_copy(update=changes), tried[best]

    def _detect(self, detector: Detector, keys: list[str]) -> dict[str, Detections]:
        predictor = BoxPredictor.of(detector, self.where)
        return {key: predictor(self.reader.read(key)) for key in keys}

    def _predictions(self, found: dict[str, Detections], nms_iou: float | None) -> Predictions:
        names = self.labelled.classes
        kept = {key: one if nms_iou is None else suppress_duplicates(one, nms_iou) for key, one in found.items()}
        truth = {key: self.labelled.objects[key] for key in found}
        return Predictions(truth, {key: one.annotations(names) for key, one in kept.items()})
