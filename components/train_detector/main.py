"""Train a detector on boxes.

Defaults (2000 steps of 8 crops, ViT nano with patch 8, small decoder) on crops of 160 x 128 px: about 0.9 s per step on
one core (AMD EPYC, 2026-11); the time grows with the pixels of a crop.
"""

import cv2

from components.train_detector.batches import Batches
from components.train_detector.card import model_card
from components.train_detector.component import TrainDetector
from components.train_detector.initial_detector import crop_size, initial_detector
from components.train_detector.labelled_images import LabelledImages, NothingToLearn, labelled_images, unlabelled_images
from components.train_detector.loop import train
from components.train_detector.page import make_page
from components.train_detector.training_record import TrainingRecord
from components.train_detector.validation import Predictions, Validation
from shared.artifacts.image_set import ImageReader
from shared.data.box_crops import BoxCrops
from shared.data.boxes import Boxes
from shared.data.crops import CACHE_BYTES
from shared.models.config import DetectorConfig, DetectorPostProcessing
from shared.models.files import save_absent, save_model
from shared.stage.declaration import Result
from shared.system.devices import device, threads
from shared.system.errors import UserError
from shared.training.history import History, first_and_last_loss
from shared.training.seeds import seed_everything


def run(stage: TrainDetector) -> Result:
    """Train, keep the best weights, choose the score threshold on the held-out images."""
    cv2.setNumThreads(threads())
    reader = ImageReader(stage.images)
    try:
        labelled = labelled_images(stage, reader)
    except NothingToLearn as error:
        if stage.without_labels == "fail":
            raise UserError(str(error)) from error
        save_absent(stage.detector, f"No detector was trained: {error}.")
        return Result(skipped=str(error))
    seed_everything(stage.seed)
    detector, where = initial_detector(stage, reader, labelled), device()
    batches = _batches(stage, reader, labelled, detector.config)
    validation = Validation(reader, labelled, where)
    trained, record, history = train(stage, detector, batches, validation, where)
    processing, predictions = validation.calibrate(trained)
    config = detector.config.model_copy(update={"postprocessing": processing})
    metrics = _metrics(record, history, labelled, predictions)
    save_model(stage.detector, trained.state_dict(), config, model_card(stage, config, labelled, predictions, metrics))
    page = make_page(record, history, labelled, predictions, reader)
    return Result(metrics=metrics, page=page, remark=_remark(labelled, processing))


def _batches(stage: TrainDetector, reader: ImageReader, labelled: LabelledImages, config: DetectorConfig) -> Batches:
    """Crops of the labelled images, and of those without labels where they are asked for."""
    size = crop_size(reader, labelled.train, stage.crop, config.input.downsample)
    without = unlabelled_images(stage, reader, labelled)
    memory = CACHE_BYTES // (1 + len(without))

    def crops(images: ImageReader, keys: list[str], boxes: dict[str, Boxes]) -> BoxCrops:
        given = {"size": size, "scale_jitter": stage.scale_jitter, "cache_bytes": memory}
        return BoxCrops(images, boxes, keys, model_input=config.input, **given)  # type: ignore[arg-type]

    learned = crops(reader, labelled.train, labelled.boxes(labelled.train))
    return Batches(stage, learned, [crops(images, keys, {}) for images, keys in without])


def _metrics(
    record: TrainingRecord, history: History, labelled: LabelledImages, predictions: Predictions
) -> dict[str, float]:
    """Scores and figures of the training; names of scores on training images start with `training_`."""
    threshold, f1 = predictions.threshold
    prefix = "" if labelled.held_out else "training_"
    scores = {f"{prefix}{name}": value for name, value in (predictions.metrics | {"f1": f1}).items()}
    known = {"best_step": record.measured[record.best_index][0], "steps": len(history)}
    return scores | {"score_threshold": threshold} | known | first_and_last_loss(history)


def _remark(labelled: LabelledImages, processing: DetectorPostProcessing) -> str:
    scored = "held-out images" if labelled.held_out else "training images, so the scores are too high"
    return (
        f"Scored on {len(labelled.valid)} {scored}, against {labelled.origin}; score threshold "
        f"{processing.score_threshold:.3f}."
    )
