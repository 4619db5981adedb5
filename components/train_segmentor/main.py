"""Train a segmentor on label images.

Defaults (400 steps of 12 crops of 128 px, ViT nano, encoder frozen): about 0.4 s per step on one core (AMD EPYC,
2026-11), twice as much where the encoder is trained as well.
"""

import cv2

from components.train_segmentor.calibration import Tuned, calibrate_high_threshold, fit_to_refinement, tune
from components.train_segmentor.card import model_card
from components.train_segmentor.component import TrainSegmentor
from components.train_segmentor.labelled_crops import (
    LabelledCrops,
    has_foreground,
    learned_and_validated,
    object_diameter,
)
from components.train_segmentor.loop import train
from components.train_segmentor.page import make_page
from components.train_segmentor.plan import plan_training
from shared.artifacts.image_set import ImageReader, magnification_of, median_um_per_px
from shared.artifacts.label_set import NOTE_BORDER_REFINEMENT, LabelReader
from shared.artifacts.manifest import copy_payload
from shared.artifacts.postprocessing import PostProcessing
from shared.models.backbones.vit import Encoder
from shared.models.config import ModelInput, SegmentorArchitecture, SegmentorConfig
from shared.models.files import load_config, save_model
from shared.models.load import load_model
from shared.models.segmentor import Segmentor
from shared.models.tiled_inference import TiledPredictor
from shared.stage.declaration import Result
from shared.system.devices import device, threads
from shared.system.errors import UserError
from shared.targets import TARGETS
from shared.training.history import first_and_last_loss
from shared.training.seeds import seed_everything


def run(stage: TrainSegmentor) -> Result:
    """Train, calibrate the post-processing, and write the averaged weights."""
    cv2.setNumThreads(threads())
    if stage.skip:
        return _copy_model(stage)
    reader, labels = ImageReader(stage.images), LabelReader(stage.labels)
    keys, validation = learned_and_validated(reader, labels)
    if not has_foreground(labels, keys):
        raise UserError(_nothing_to_learn(labels))
    seed_everything(stage.seed)
    segmentor, is_new = _initial_segmentor(stage, reader, labels, keys)
    crops = _labelled_crops(stage, segmentor.config, reader, labels, keys)
    target = segmentor.config.architecture.target
    plan = plan_training(stage, target, is_new=is_new, kinds=crops.crops.mixture.kinds)
    where = device()
    trained, history = train(stage, segmentor, crops, plan, where)
    predictor = TiledPredictor.of(trained, where)
    calibrated, tuned = _calibrate(predictor, segmentor.config, crops, reader, validation)
    config = segmentor.config.model_copy(update={"postprocessing": calibrated})
    save_model(stage.segmentor, trained.state_dict(), config, model_card(stage, plan, config, crops, history))
    metrics = first_and_last_loss(history) | {
        "merge_threshold": calibrated.merge_threshold,
        "high_threshold": calibrated.high_threshold,
    }
    return Result(metrics=metrics, page=make_page(history, tuned, predictor, config, reader, labels, keys))


def _initial_segmentor(
    stage: TrainSegmentor, reader: ImageReader, labels: LabelReader, keys: list[str]
) -> tuple[Segmentor, bool]:
    """The network to train, and whether it is new, built on an encoder."""
    model = load_model(stage.model, Encoder, Segmentor)
    given = model.config.input
    scale = median_um_per_px(reader, keys) or given.um_per_px
    known = {
        "magnification": magnification_of(reader, keys),
        "um_per_px": scale,
        "crop_px": stage.crop,
        "object_px": object_diameter(labels, keys) or given.object_px,
    }
    model_input = ModelInput.model_validate({**given.model_dump(), **known})
    if isinstance(model, Segmentor):
        model.config = model.config.model_copy(update={"input": model_input})
        return (model if stage.target == "auto" else model.of_target(stage.target)), False
    by_watershed = labels.info.notes.get(NOTE_BORDER_REFINEMENT) == "edges"
    auto = "flow" if by_watershed else "foreground_distance"
    target = auto if stage.target == "auto" else stage.target
    architecture = SegmentorArchitecture(encoder=model.config.architecture, target=target)
    segmentor = Segmentor(SegmentorConfig(architecture=architecture, input=model_input))
    segmentor.encoder.load_state_dict(model.state_dict())
    return segmentor, True


def _labelled_crops(
    stage: TrainSegmentor, config: SegmentorConfig, reader: ImageReader, labels: LabelReader, keys: list[str]
) -> LabelledCrops:
    target = TARGETS[config.architecture.target]
    return LabelledCrops(reader, labels, keys, size=stage.crop, model_input=config.input, target=target)


def _nothing_to_learn(labels: LabelReader) -> str:
    """Message for labels without foreground."""
    if labels.info.origin == "pseudo":
        return (
            "--labels: no pixel is foreground, so there is nothing to learn; look at the page of `cluster`, then label "
            "a few images and set use_labels, or set another cluster.k"
        )
    return (
        "--labels: no labelled image of the split train has an object, so there is nothing to learn; label some, and "
        "look at the page of `ingest` for the splits"
    )


def _calibrate(
    predictor: TiledPredictor, config: SegmentorConfig, crops: LabelledCrops, reader: ImageReader, validation: list[str]
) -> tuple[PostProcessing, Tuned | None]:
    """Post-processing that fits the trained network, and what was tried on labelled images."""
    labels, keys = crops.labels, crops.crops.keys
    refinement = labels.info.notes.get(NOTE_BORDER_REFINEMENT, "none")
    settings = fit_to_refinement(config.postprocessing, refinement)
    settings = calibrate_high_threshold(predictor, crops.target, settings, reader, keys)
    if not validation:
        return settings, None
    return tune(predictor, crops.target, settings, reader, labels, validation)


def _copy_model(stage: TrainSegmentor) -> Result:
    """Copy the payload of `model`, which must be a segmentor."""
    load_config(stage.model, SegmentorConfig)
    copy_payload(stage.model, stage.segmentor)
    return Result(skipped="the EM loop has ended")
