"""Crops with their targets: the same window cut from an image and from the planes of its labels."""

from functools import partial

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LABELLED, LabelReader
from shared.data.array_cache import ArrayCache
from shared.data.augmentation import jitter_intensity
from shared.data.crops import Crops, Window
from shared.models.config import ModelInput
from shared.targets import Target

FOREGROUND_SHARE = 0.5
"""Share of crops that are centred near a foreground pixel, where the image has one."""
LABEL_BYTES = 2**29
"""Bytes of encoded labels that are kept."""
NUMBERS = 4 + 3
"""Random numbers that each crop draws: in `_to_foreground` and `jitter_intensity`."""
HAND_LABELLED_SHARE = 0.5
"""Share of crops from images that a person labelled, where there are any."""


class LabelledCrops:
    """Normalised crops, and what a network should give for them."""

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
        """size: px on the side of a crop as the network sees it; label_bytes: of encoded labels kept in memory."""
        self.labels, self.size, self.target = labels, size, target
        of = partial(
            Crops,
            reader,
            size=size,
            model_input=model_input,
        )
        self.crops = of(keys, balanced=True)
        known = set(labels.info.notes.get(LABELLED, []))
        self.hand_labelled = [key for key in keys if key in known]
        """Keys of the images that a person labelled."""
        self._hand_labelled_crops = of(self.hand_labelled) if self.hand_labelled else None
        self.cache: ArrayCache[np.ndarray] = ArrayCache(label_bytes, lambda planes: planes.nbytes)

    def planes(self, key: str) -> np.ndarray:
        """The target's planes of an image: (H, W, P) uint8."""
        return self.cache.get(key, lambda: self._encode(key))

    def _encode(self, key: str) -> np.ndarray:
        labels = self.labels
        return self.target.encode(labels.mask(key), labels.conf(key), labels.entries[key].kind)

    def batch(self, count: int, rng: np.random.Generator, part: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """`part` of `count` crops: images (n, size, size, channels) and planes (n, P, size, size), both float32."""
        images, planes = [], []
        wanted = range(count)[part]
        for i, window in enumerate(self._windows(count, rng)):
            if i not in wanted:
                rng.random(NUMBERS)  # so that the next crop's numbers do not depend on it
                continue
            window = self._to_foreground(window, rng)
            images.append(jitter_intensity(self.crops.cut(window), rng))
            planes.append(self.target.cut(self.planes(window.key), window, self.size))
        return np.stack(images), np.stack(planes)

    def _windows(self, count: int, rng: np.random.Generator) -> list[Window]:
        chosen = self.crops.windows(count, rng)
        if self._hand_labelled_crops is None:
            return chosen
        few = round(HAND_LABELLED_SHARE * count)
        return self._hand_labelled_crops.windows(few, rng) + chosen[few:]

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
