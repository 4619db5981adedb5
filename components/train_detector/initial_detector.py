"""Build the detector to train: its config from the stage's settings and the images, its weights from the encoder."""

import math

import numpy as np

from components.train_detector.component import TrainDetector
from components.train_detector.labelled_images import LabelledImages
from components.train_detector.published_detector import published_detector
from components.train_detector.resnet_weights import load_resnet_weights
from shared.artifacts.image_set import ImageReader, median_um_per_px
from shared.data.boxes import densest
from shared.models.backbones.resnet import ResNet
from shared.models.backbones.vit import Encoder
from shared.models.box_predictor import positions
from shared.models.config import (
    DetectorArchitecture,
    DetectorConfig,
    DetectorPostProcessing,
    ModelInput,
    ResNetArchitecture,
    VitArchitecture,
)
from shared.models.detector import SIDE_MULTIPLE, Detector
from shared.models.load import load_model
from shared.system.errors import UserError
from shared.system.log import log

QUERY_MARGIN, MIN_QUERIES, QUERY_STEP = 1.5, 50, 10
"""Queries per object of the densest tile, their least number, and the step to which they are rounded up."""
LONG_SIDE_PERCENTILE = 98
"""Percentile of the training boxes' longer sides by which neighbouring tiles overlap."""

MIN_MEDIAN_PX = 24
"""Longer side of the median box from which images may be downsampled to it: a red blood cell of BCCD at a quarter of
its size (RESULTS.md)."""


def initial_detector(stage: TrainDetector, reader: ImageReader, labelled: LabelledImages) -> Detector:
    """Return a detector with new weights on the given encoder, or on a ResNet."""
    encoder = load_model(stage.encoder, Encoder)
    model_input = _model_input(stage, encoder, reader, labelled)
    queries = chosen_queries(stage, labelled, model_input)
    processing = DetectorPostProcessing(overlap_px=_overlap(labelled, model_input))
    if stage.weights:
        if stage.backbone != "encoder" or stage.backbone_weights:
            raise UserError("--weights, --backbone: the weights have a backbone of their own; give one of the two")
        return published_detector(stage.weights, labelled.classes, model_input, processing, queries)
    backbone = _backbone(stage, encoder)
    fields = {"queries": queries, "detail": stage.detail, "pyramid": stage.pyramid}
    architecture = DetectorArchitecture.preset(stage.size, backbone, labelled.classes, **fields)
    detector = Detector(DetectorConfig(architecture=architecture, input=model_input, postprocessing=processing))
    if detector.encoder is not None:
        detector.encoder.load_state_dict(encoder.state_dict())
    if isinstance(detector.backbone, ResNet) and stage.backbone_weights:
        load_resnet_weights(detector.backbone, stage.backbone_weights)
    return detector


def _backbone(stage: TrainDetector, encoder: Encoder) -> VitArchitecture | ResNetArchitecture:
    if stage.backbone == "encoder":
        if stage.backbone_weights:
            raise UserError("--backbone_weights: they are for a ResNet; set --backbone, or leave them out")
        return encoder.config.architecture
    depth = int(stage.backbone.removeprefix("resnet"))
    norm = "frozen" if stage.backbone_weights else "group"
    return ResNetArchitecture(depth=depth, norm=norm)  # type: ignore[arg-type]


def crop_size(reader: ImageReader, keys: list[str], crop: int, downsample: int) -> tuple[int, int]:
    """Return height and width of the training crops: `crop`, or the next multiple of 32 from the largest image on.

    px of the network's input.
    """
    largest = (max(getattr(reader.entries[key], side) for key in keys) for side in ("height", "width"))
    height, width = (min(crop, math.ceil(length / downsample / SIDE_MULTIPLE) * SIDE_MULTIPLE) for length in largest)
    return height, width


def _longer_side(labelled: LabelledImages, percentile: float) -> float:
    """Percentile of the longer side of the training boxes, px of the image."""
    sides = [max(one.bbox[2:]) for key in labelled.train for one in labelled.objects[key] if not one.iscrowd]
    return float(np.percentile(sides, percentile))


def _downsample(stage: TrainDetector, labelled: LabelledImages) -> int:
    """The stage's factor; auto: the largest that leaves half of the boxes `MIN_MEDIAN_PX` long."""
    if stage.downsample != "auto":
        return int(stage.downsample)
    side = _longer_side(labelled, 50)
    factor = next((factor for factor in (4, 2) if side / factor >= MIN_MEDIAN_PX), 1)
    log.info("images are downsampled by %d: half of the boxes are longer than %.0f px", factor, side)
    return factor


def _overlap(labelled: LabelledImages, model_input: ModelInput) -> int:
    """Overlap of tiles, px of the network's input, in which most objects are whole."""
    return math.ceil(_longer_side(labelled, LONG_SIDE_PERCENTILE) / model_input.downsample)


def _model_input(stage: TrainDetector, encoder: Encoder, reader: ImageReader, labelled: LabelledImages) -> ModelInput:
    given, keys = encoder.config.input, labelled.train
    channels = {reader.entries[key].channels for key in keys}
    if max(channels) > given.channels and given.channels > 1:
        raise UserError(
            f"--encoder: it takes {given.channels} channels, the images have {max(channels)}; pretrain an encoder on "
            "these images"
        )
    downsample = _downsample(stage, labelled)
    changes = {
        "downsample": downsample,
        "crop_px": max(crop_size(reader, keys, stage.crop, downsample)),
        "um_per_px": median_um_per_px(reader, keys) or given.um_per_px,
    }
    return ModelInput.model_validate({**given.model_dump(), **changes})


def chosen_queries(stage: TrainDetector, labelled: LabelledImages, model_input: ModelInput) -> int:
    """Return the number of queries, at most that of the positions in a crop's feature maps."""
    boxes = labelled.boxes(labelled.train)
    side = model_input.crop_px or stage.crop
    most = {key: densest([one], side * model_input.downsample) for key, one in boxes.items()}
    fullest = max(most, key=lambda key: (most[key], key))
    most_queries = positions(side)
    if stage.queries == "auto":
        wanted = math.ceil(QUERY_MARGIN * most[fullest] / QUERY_STEP) * QUERY_STEP
        queries = min(most_queries, max(MIN_QUERIES, wanted))
    elif stage.queries > most_queries:
        raise UserError(f"--queries: {stage.queries} exceed the {most_queries} positions of a crop; raise --crop")
    else:
        queries = stage.queries
    if most[fullest] > queries:
        log.warning(
            "%s: %d objects in a tile of %d px, more than the %d queries can find; raise --queries, or lower --crop",
            *(fullest, most[fullest], side, queries),
        )
    log.info("%d queries; the densest tile of the training images has %d objects", queries, most[fullest])
    return queries
