"""Random crops of an ImageSet for training. What a step gets follows from (seed, step) alone."""

from dataclasses import dataclass

import cv2
import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.data.array_cache import ArrayCache
from shared.data.sampling import Mixture, mixture
from shared.imaging.appearance import appearance
from shared.imaging.normalise import match_channels
from shared.imaging.tiling import reflect_index
from shared.models.config import ModelInput

CACHE_BYTES = 2**30
"""Bytes of decoded images that are kept."""
Decoded = tuple[np.ndarray, list[tuple[float, float]]]
"""An image (H, W, C), and the limits that `Normalisation.apply` takes."""


@dataclass(frozen=True)
class Window:
    """A square of one image, and how it is turned."""

    key: str
    y: int
    """px, first row. The window may reach beyond the image, which is reflected there."""
    x: int
    """px, first column."""
    side: int
    """px"""
    turns: int = 0
    """Quarter turns, 0 to 3."""
    flip: bool = False
    """Mirrored left to right after turning."""


class Crops:
    """Normalised crops, float32, with a model's number of channels."""

    def __init__(
        self,
        reader: ImageReader,
        keys: list[str],
        *,
        size: int,
        model_input: ModelInput,
        scale_jitter: float = 1.25,
        cache_bytes: int = CACHE_BYTES,
        balanced: bool = False,
    ) -> None:
        """size: px on the side of a crop as the network sees it.

        scale_jitter: crops show the image up to so many times larger or smaller. balanced: draw rare kinds of images
        more often than their share of the area, see `shared.data.sampling`.
        """
        self.reader, self.keys, self.size, self.input, self.scale_jitter = reader, keys, size, model_input, scale_jitter
        self.cache: ArrayCache[Decoded] = ArrayCache(cache_bytes, lambda item: item[0].nbytes)
        sizes = [(reader.entries[key].height, reader.entries[key].width) for key in keys]
        self._sizes = dict(zip(keys, sizes, strict=True))
        areas = np.array([h * w for h, w in sizes], np.float64)
        self.mixture = mixture(keys, areas, self._appearance) if balanced else Mixture(areas / areas.sum(), kinds=1)

    def image(self, key: str) -> Decoded:
        """An image and its normalisation limits, decoded where it is not kept in memory."""
        return self.cache.get(key, lambda: self._decode(key))

    def _decode(self, key: str) -> Decoded:
        image = self.reader.read(key)
        return image, self.input.normalisation.limits(image)

    def _appearance(self, key: str) -> np.ndarray:
        return appearance(*self.image(key), self.input.normalisation)

    def windows(self, count: int, rng: np.random.Generator) -> list[Window]:
        """Random windows; where not balanced, every pixel of the set is about equally likely. Four to an image."""
        chosen = rng.choice(len(self.keys), size=-(-count // 4), p=self.mixture.shares)
        return [self._window(self.keys[chosen[i // 4]], rng) for i in range(count)]

    def _window(self, key: str, rng: np.random.Generator) -> Window:
        side = round(self.size * self.input.downsample * self.scale_jitter ** rng.uniform(-1, 1))
        y, x = (int(rng.integers(max(1, length - side + 1))) for length in self._sizes[key])
        return Window(key, y, x, side, int(rng.integers(4)), bool(rng.integers(2)))

    def batch(self, count: int, rng: np.random.Generator, part: slice = slice(None)) -> np.ndarray:
        """`part` of `count` random crops: (n, size, size, channels) float32."""
        return np.stack([self.cut(window) for window in self.windows(count, rng)[part]])

    def cut(self, window: Window) -> np.ndarray:
        """One window as a crop (size, size, channels) float32."""
        image, limits = self.image(window.key)
        crop = self.input.normalisation.apply(cut_window(image, window), limits)
        return turn(resized(match_channels(crop, self.input.channels), self.size), window)


def cut_window(plane: np.ndarray, window: Window) -> np.ndarray:
    """The window's pixels (side, side, ...), reflected where it reaches beyond the image (H, W, ...); not turned."""
    height, width = plane.shape[:2]
    if window.y + window.side <= height and window.x + window.side <= width:
        return plane[window.y : window.y + window.side, window.x : window.x + window.side]
    rows = reflect_index(window.y, window.y + window.side, height)
    columns = reflect_index(window.x, window.x + window.side, width)
    return plane[rows[:, None], columns]


def resized(crop: np.ndarray, size: int) -> np.ndarray:
    """(side, side, C) float32 -> (size, size, C): bilinear up, by area down."""
    if crop.shape[0] == size:
        return crop
    how = cv2.INTER_AREA if crop.shape[0] > size else cv2.INTER_LINEAR
    planes = [
        cv2.resize(np.ascontiguousarray(crop[..., c]), (size, size), interpolation=how) for c in range(crop.shape[2])
    ]
    return np.stack(planes, axis=2)


def turn(crop: np.ndarray, window: Window) -> np.ndarray:
    """The crop (S, S, ...) turned and mirrored as the window says."""
    crop = np.rot90(crop, window.turns)
    return crop[:, ::-1] if window.flip else crop
