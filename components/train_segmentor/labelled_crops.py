"""Crops with their pseudo-masks: the same window cut from both."""

from collections import OrderedDict
from functools import partial

import cv2
import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LABELLED, LabelReader
from shared.data.augmentation import jitter_intensity
from shared.data.crops import Crops, Window, cut_window, turned
from shared.imaging.normalise import Normalisation
from shared.instances.distance import instance_depth
from shared.instances.watershed import split_touching

FOREGROUND_SHARE = 0.5
"""Share of crops that are centred near a foreground pixel, where the image has one."""
LABEL_BYTES = 2**29
SCALE = np.array([1, 1 / 255, 1 / 255], np.float32)[:, None, None]
DRAWN = 4 + 3
"""Numbers that each crop draws: `_to_foreground` and `jitter_intensity`."""
DRAWN_SHARE = 0.5
"""Share of crops from images whose masks a person drew, where there are any."""


class LabelledCrops:
    """Normalised crops with foreground mask and weight."""

    def __init__(
        self,
        reader: ImageReader,
        labels: LabelReader,
        keys: list[str],
        *,
        size: int,
        channels: int,
        normalisation: Normalisation,
        shrink: int = 1,
        label_bytes: int = LABEL_BYTES,
    ) -> None:
        self.labels, self.size, self.label_bytes = labels, size, label_bytes
        of = partial(Crops, reader, size=size, channels=channels, normalisation=normalisation, shrink=shrink)
        self.crops = of(keys, balanced=True)
        known = set(labels.info.notes.get(LABELLED, []))
        self.drawn_keys = [key for key in keys if key in known]
        self.drawn = of(self.drawn_keys) if self.drawn_keys else None
        self._bytes = 0
        self._planes: OrderedDict[str, np.ndarray] = OrderedDict()

    def planes(self, key: str) -> np.ndarray:
        """Mask {0, 1}, confidence and depth of 0 to 255 of an image: (H, W, 3) uint8.

        The least recently used are forgotten first.
        """
        if key in self._planes:
            self._planes.move_to_end(key)
            return self._planes[key]
        labels = self.labels.mask(key)
        mask = (labels > 0).astype(np.uint8)
        if self.labels.entries[key].kind == "foreground":
            labels = split_touching(mask)
        depth = np.rint(instance_depth(labels * mask) * 255).astype(np.uint8)
        planes = np.stack([mask, self.labels.conf(key), depth], axis=-1)
        while self._planes and self._bytes + planes.nbytes > self.label_bytes:
            self._bytes -= self._planes.popitem(last=False)[1].nbytes
        self._planes[key] = planes
        self._bytes += planes.nbytes
        return planes

    def batch(self, count: int, rng: np.random.Generator, part: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """`part` of `count` crops: images (n, size, size, channels) and what they should give (n, 3, size, size).

        Both float32. The latter: foreground {0, 1}, how much that is trusted in [0, 1], and depth in [0, 1].
        """
        images, wanted = [], []
        chosen = self.crops.windows(count, rng)
        if self.drawn:
            few = round(DRAWN_SHARE * count)
            chosen = self.drawn.windows(few, rng) + chosen[few:]
        wanted_here = range(count)[part]
        for i, window in enumerate(chosen):
            if i not in wanted_here:
                rng.random(DRAWN)  # so that the next one's numbers do not depend on it
                continue
            window = self._to_foreground(window, rng)
            images.append(jitter_intensity(self.crops.cut(window), rng))
            planes = cut_window(self.planes(window.key), window)
            planes = cv2.resize(np.ascontiguousarray(planes), (self.size, self.size), interpolation=cv2.INTER_NEAREST)
            wanted.append(turned(planes, window).transpose(2, 0, 1) * SCALE)
        return np.stack(images), np.stack(wanted)

    def _to_foreground(self, window: Window, rng: np.random.Generator) -> Window:
        """Half of the windows move so that a random foreground pixel is in their middle half."""
        move, place, *jitter = rng.random(4)  # drawn for every window, so that the next one's numbers do not shift
        if move >= FOREGROUND_SHARE:
            return window
        mask = self.planes(window.key)[..., 0]
        found = np.flatnonzero(mask)
        if not len(found):
            return window
        centre = np.unravel_index(found[int(place * len(found))], mask.shape)
        y, x = (
            int(np.clip(at - window.side * (0.25 + 0.5 * share), 0, max(0, length - window.side)))
            for at, share, length in zip(centre, jitter, mask.shape, strict=True)
        )
        return Window(window.key, y, x, window.side, window.turns, window.flip)


def has_foreground(labels: LabelReader, keys: list[str]) -> bool:
    """Whether any of the images has a foreground pixel that is not ignored."""
    return any(bool(((labels.mask(key) > 0) & (labels.conf(key) > 0)).any()) for key in keys)
