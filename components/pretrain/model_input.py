"""Choose the input of a new encoder for a set of images: channels, downsampling, pixel size."""

import numpy as np

from components.pretrain.component import Pretrain
from shared.artifacts.image_set import ImageReader, magnification_of, median_um_per_px
from shared.artifacts.keys import evenly_spaced
from shared.imaging.grey import UNCLIPPED, grey
from shared.imaging.normalise import Normalisation
from shared.models.config import Downsample, ModelInput
from shared.proposals.measured_size import MEASURED_IMAGES, object_diameter
from shared.system.errors import UserError
from shared.system.log import log

MAX_CHANNELS = 16
LARGE_OBJECT_PX = 46
"""Typical diameter from which on images are downsampled (RESULTS.md, "Constants")."""
MIN_CROP_PX = 32
"""Side of the smallest crop."""
_EXTREME_PERCENTILES = (0.05, 99.95)
"""Percentiles of an image that are not clipped."""
_WIDEST_CLIP = (-4.0, 5.0)
"""Limits of the clip range, in normalised intensity."""
_SAMPLE_PX = 250_000
"""Pixels of an image that these are measured on, about."""
_FACTORS: tuple[Downsample, ...] = (1, 2, 4)


def training_keys(reader: ImageReader) -> list[str]:
    """Return the keys of the split train. Raises UserError where there are none."""
    keys = reader.keys("train")
    if not keys:
        raise UserError(
            f"--images: {reader.folder}: none of its {len(reader)} images is in the split train; ingest more images"
        )
    return keys


def choose_input(stage: Pretrain, reader: ImageReader, keys: list[str]) -> ModelInput:
    """Return the input of a network for these images."""
    return ModelInput(
        channels=_channels(reader, keys),
        normalisation=choose_normalisation(reader, keys),
        downsample=choose_downsample(stage, reader, keys),
        magnification=magnification_of(reader, keys),
        um_per_px=median_um_per_px(reader, keys),
        crop_px=crop_side(stage.crop, reader, keys),
    )


def choose_normalisation(reader: ImageReader, keys: list[str]) -> Normalisation:
    """Return a normalisation whose clip range holds nearly every pixel of the typical image, within limits.

    Cells that cover less than a percent of an image lie outside the percentiles that become 0 and 1, and often far
    outside.
    """
    default = Normalisation()
    extremes = []
    for key in evenly_spaced(keys, MEASURED_IMAGES):
        plane = grey(reader.read(key), normalisation=UNCLIPPED)
        step = max(1, int((plane.size / _SAMPLE_PX) ** 0.5))
        extremes.append(np.percentile(plane[::step, ::step], _EXTREME_PERCENTILES))
    low, high = np.median(extremes, axis=0).clip(*_WIDEST_CLIP).round(1).tolist()
    return default.model_copy(update={"clip": (min(default.clip[0], low), max(default.clip[1], high))})


def crop_side(wanted: int, reader: ImageReader, keys: list[str]) -> int:
    """Return the side of the crops, px: `wanted`, or less where the median image is smaller; a multiple of 16.

    A crop larger than its image would mostly show reflections of it.
    """
    shorter = float(np.median([min(reader.entries[key].height, reader.entries[key].width) for key in keys]))
    if shorter >= wanted:
        return wanted
    side = max(MIN_CROP_PX, int(shorter) // 16 * 16)
    log.info("the images are %d px high or wide; crops are %d px instead of %d", shorter, side, wanted)
    return side


def _channels(reader: ImageReader, keys: list[str]) -> int:
    """1 where all images are grey, else the maximum over the images, up to 16."""
    channels = max(reader.entries[key].channels for key in keys)
    if channels > MAX_CHANNELS:
        log.warning("some images have %d channels; the first %d are used", channels, MAX_CHANNELS)
    return min(channels, MAX_CHANNELS)


def choose_downsample(stage: Pretrain, reader: ImageReader, keys: list[str]) -> Downsample:
    """Return the stage's factor, or the smallest that leaves typical objects below `LARGE_OBJECT_PX`.

    A transformer of small patches sees about 16 of them on a side, and only a part of a larger cell.
    """
    if stage.downsample != "auto":
        return next(factor for factor in _FACTORS if str(factor) == stage.downsample)
    if crop_side(stage.crop, reader, keys) < min(stage.crop, 2 * MIN_CROP_PX):  # images of single objects
        return 1
    diameter = object_diameter(reader, keys)
    factor = next((factor for factor in _FACTORS if diameter / factor < LARGE_OBJECT_PX), _FACTORS[-1])
    log.info("typical object diameter: %.0f px; images are downsampled by %d", diameter, factor)
    return factor
