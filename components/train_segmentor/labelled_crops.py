"""Cut crops with their targets: the same window from an image and from the planes of its labels."""

from dataclasses import replace
from functools import partial

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import NOTE_HAND_LABELLED, LabelReader
from shared.data.array_cache import ArrayCache
from shared.data.augmentation import jitter_intensity
from shared.data.crops import Crops, Window
from shared.instances.distance import typical_diameter
from shared.models.config import ModelInput
from shared.targets import Target

FOREGROUND_SHARE = 0.5
"""Share of crops that are moved to a foreground pixel, where the image has one."""
LABEL_BYTES = 2**29
"""Bytes of encoded labels kept in memory."""
HAND_LABELLED_SHARE = 0.5
"""Share of crops from hand-labelled images, where there are any."""
TUNED_IMAGES = 8
"""Images by which the post-processing is tuned, where all are hand-labelled."""
MEASURED_IMAGES = 32
"""Images, evenly spaced, whose objects are measured."""
_DRAWS_PER_CROP = 4 + 3
"""Random numbers that a crop draws, in `_move_to_foreground` and `jitter_intensity`."""


class LabelledCrops:
    """Normalised crops, and the target's planes of the same windows."""

    def __init__(
        self,
        reader: ImageReader,
        labels: LabelReader,
        keys: list[str],
        *,
        size: int,
        model_input: ModelInput,
        target: Target,
        label_bytes: int = LABEL_BYTES,
    ) -> None:
        """size: side of a crop in network input, px; label_bytes: bytes of encoded labels kept in memory."""
        self.labels, self.size, self.target = labels, size, target
        crops_of = partial(Crops, reader, size=size, model_input=model_input)
        self.crops = crops_of(keys, balanced=True)
        self.hand_labelled = hand_labelled(labels, keys)
        """Keys of the hand-labelled images among pseudo-labels."""
        self._hand_labelled_crops = crops_of(self.hand_labelled) if self.hand_labelled else None
        self.cache: ArrayCache[np.ndarray] = ArrayCache(label_bytes, lambda planes: planes.nbytes)

    def planes(self, key: str) -> np.ndarray:
        """Return the target's planes of an image: (H, W, P) uint8."""
        return self.cache.get(key, lambda: self._encode(key))

    def _encode(self, key: str) -> np.ndarray:
        labels = self.labels
        return self.target.encode(labels.mask(key), labels.conf(key), labels.entries[key].kind)

    def batch(self, count: int, rng: np.random.Generator, part: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Draw `count` crops and cut `part` of them.

        Returns images (n, size, size, channels) and planes (n, P, size, size), both float32.
        """
        images, planes = [], []
        wanted = range(count)[part]
        for i, window in enumerate(self._windows(count, rng)):
            if i not in wanted:
                rng.random(_DRAWS_PER_CROP)  # keeps the next crop's numbers independent of `part`
                continue
            window = self._move_to_foreground(window, rng)
            images.append(jitter_intensity(self.crops.cut(window), rng))
            planes.append(self.target.cut(self.planes(window.key), window, self.size))
        return np.stack(images), np.stack(planes)

    def _windows(self, count: int, rng: np.random.Generator) -> list[Window]:
        windows = self.crops.windows(count, rng)
        if self._hand_labelled_crops is None:
            return windows
        hand_labelled = round(HAND_LABELLED_SHARE * count)
        return self._hand_labelled_crops.windows(hand_labelled, rng) + windows[hand_labelled:]

    def _move_to_foreground(self, window: Window, rng: np.random.Generator) -> Window:
        """Move half of the windows so that a random foreground pixel lies in their middle half."""
        move, place, *jitter = rng.random(4)  # drawn for every window, so that the next one's numbers do not shift
        if move >= FOREGROUND_SHARE:
            return window
        mask = self.planes(window.key)[..., 0]
        foreground = np.flatnonzero(mask)
        if not len(foreground):
            return window
        centre = np.unravel_index(foreground[int(place * len(foreground))], mask.shape)
        y, x = (
            int(np.clip(at - window.side * (0.25 + 0.5 * share), 0, max(0, length - window.side)))
            for at, share, length in zip(centre, jitter, mask.shape, strict=True)
        )
        return replace(window, y=y, x=x)


def hand_labelled(labels: LabelReader, keys: list[str]) -> list[str]:
    """Return those of the keys whose pseudo-label is a hand-made one."""
    known = set(labels.info.notes.get(NOTE_HAND_LABELLED, []))
    return [key for key in keys if key in known]


def learned_and_validated(reader: ImageReader, labels: LabelReader) -> tuple[list[str], list[str]]:
    """Keys of the images to learn from, and of those by which the post-processing is tuned; ascending.

    Of pseudo-labels all, tuned on the hand-labelled among them. Of labels by hand the splits train and val; without
    labels in val, some of those learned from. The split test is neither.
    """
    if labels.info.origin == "pseudo":
        keys = [key for key in sorted(labels.entries) if key in reader.entries]
        return keys, hand_labelled(labels, keys)
    train, val = ([key for key in reader.keys(split) if key in labels.entries] for split in ("train", "val"))
    return train, evenly_spaced(val or train, TUNED_IMAGES)


def object_diameter(labels: LabelReader, keys: list[str]) -> float | None:
    """Median over some images of their typical object's diameter, px; None where no image has an object."""
    masks = ((labels.mask(key) > 0).astype(np.uint8) for key in evenly_spaced(keys, MEASURED_IMAGES))
    known = [diameter for mask in masks if (diameter := typical_diameter(mask)) is not None]
    return round(float(np.median(known)), 1) if known else None


def has_foreground(labels: LabelReader, keys: list[str]) -> bool:
    """Return whether any of the images has a foreground pixel with confidence."""
    return any(bool(((labels.mask(key) > 0) & (labels.conf(key) > 0)).any()) for key in keys)
