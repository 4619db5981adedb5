"""Choose what the network sees of an image: its limits, its window, its size."""

import numpy as np

from components.train_classifier.component import TrainClassifier
from shared.artifacts.image_set import ImageReader, median_um_per_px
from shared.artifacts.keys import evenly_spaced
from shared.imaging.normalise import Normalisation
from shared.models.config import ModelInput
from shared.system.errors import UserError

MIN_SIZE, MAX_SIZE = 32, 128
"""Limits of the side to which images are resized where `size` is auto, px."""
SIZES_DIFFER, MAX_WINDOW = 1.25, 512
"""With fit=auto: ratio of the sizes of large and small images from which on, and size in px up to which, images are
centred in a window."""
LIMIT_IMAGES = 500
"""Training images from which the limits of intensity=set are taken."""


def choose_input(
    stage: TrainClassifier, reader: ImageReader, keys: list[str], given: ModelInput, patch: int
) -> ModelInput:
    """Return the input of a classifier of these training images, on an encoder with the input `given`."""
    window = choose_window(stage, reader, keys)
    return ModelInput(
        channels=given.channels,
        normalisation=choose_normalisation(stage, reader, keys, given.normalisation),
        um_per_px=median_um_per_px(reader, keys) or given.um_per_px,
        crop_px=choose_size(stage, reader, keys, given, patch, window),
        window_px=window,
    )


def choose_normalisation(
    stage: TrainClassifier, reader: ImageReader, keys: list[str], given: Normalisation
) -> Normalisation:
    """Return the encoder's normalisation, or with intensity=set one with fixed limits.

    The limits are medians over up to LIMIT_IMAGES training images, of those with the most channels.
    """
    if stage.intensity == "image":
        return given
    channels = max(reader.entries[key].channels for key in keys)
    full = [key for key in keys if reader.entries[key].channels == channels]
    limits = np.array([given.limits(reader.read(key)) for key in evenly_spaced(full, LIMIT_IMAGES)])
    low, high = np.median(limits, axis=0).T
    flat = high <= low  # most images are of one value each
    low, high = np.where(flat, limits[..., 0].min(axis=0), low), np.where(flat, limits[..., 1].max(axis=0), high)
    return given.model_copy(update={"fixed": tuple(zip(low.tolist(), high.tolist(), strict=True))})


def choose_window(stage: TrainClassifier, reader: ImageReader, keys: list[str]) -> int | None:
    """Return the side of the window that images are centred in, px; None where they are stretched."""
    smaller, larger = np.percentile(
        [max(reader.entries[key].height, reader.entries[key].width) for key in keys], (5, 95)
    )
    differ = larger > SIZES_DIFFER * smaller and larger <= MAX_WINDOW
    return round(larger) if stage.fit == "window" or (stage.fit == "auto" and differ) else None


def choose_size(
    stage: TrainClassifier, reader: ImageReader, keys: list[str], given: ModelInput, patch: int, window: int | None
) -> int:
    """Return the side to which images are resized, px."""
    if stage.size != "auto":
        if stage.size % patch:
            raise UserError(
                f"--size: {stage.size} is no multiple of the encoder's patch, {patch} px; give "
                f"{max(1, stage.size // patch) * patch} or {(stage.size // patch + 1) * patch}"
            )
        return stage.size
    own = window or np.median([min(reader.entries[key].height, reader.entries[key].width) for key in keys])
    return max(1, int(np.clip(own / given.downsample, MIN_SIZE, MAX_SIZE)) // patch) * patch
