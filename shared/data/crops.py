"""Random crops of an ImageSet for training. What a step gets follows from (seed, step) alone.

Augmentation fits microscopy: any of the eight flips and quarter turns or any angle, scale, brightness, contrast, gamma,
blur, noise of detector and photons; no hue.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.data.image_cache import CACHE_BYTES, ImageCache
from shared.data.sampling import Mixture, mixture
from shared.imaging.appearance import look
from shared.imaging.normalise import Normalisation, match_channels
from shared.imaging.tiling import reflect_index


@dataclass(frozen=True)
class Window:
    """A square of one image, and how it is turned."""

    key: str
    y: int
    """px, first row; the window may reach beyond the image, which goes on reflected."""
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
        channels: int,
        normalisation: Normalisation,
        scale: float = 1.25,
        shrink: int = 1,
        cache_bytes: int = CACHE_BYTES,
        balanced: bool = False,
    ) -> None:
        """size: px on the side of a crop, of `shrink` px of the image each; scale: how much larger or smaller still.

        balanced: rare kinds of images more often than their area's share, see `shared.data.sampling`.
        """
        self.keys, self.size, self.channels, self.scale, self.shrink = keys, size, channels, scale, shrink
        self.cache = ImageCache(reader, normalisation, cache_bytes)
        sizes = [(reader.entries[key].height, reader.entries[key].width) for key in keys]
        self._sizes = dict(zip(keys, sizes, strict=True))
        areas = np.array([h * w for h, w in sizes], np.float64)
        self.mixture = mixture(keys, areas, self._look) if balanced else Mixture(areas / areas.sum(), kinds=1)

    def _look(self, key: str) -> np.ndarray:
        return look(*self.cache.get(key), self.cache.normalisation)

    def windows(self, count: int, rng: np.random.Generator) -> list[Window]:
        """Random windows; where not balanced, every pixel of the set is about equally likely. Four to an image."""
        chosen = rng.choice(len(self.keys), size=-(-count // 4), p=self.mixture.shares)
        return [self._window(self.keys[chosen[i // 4]], rng) for i in range(count)]

    def _window(self, key: str, rng: np.random.Generator) -> Window:
        side = round(self.size * self.shrink * self.scale ** rng.uniform(-1, 1))
        y, x = (int(rng.integers(max(1, length - side + 1))) for length in self._sizes[key])
        return Window(key, y, x, side, int(rng.integers(4)), bool(rng.integers(2)))

    def batch(self, count: int, rng: np.random.Generator, part: slice = slice(None)) -> np.ndarray:
        """`part` of `count` random crops: (n, size, size, channels) float32."""
        return np.stack([self.cut(window) for window in self.windows(count, rng)[part]])

    def cut(self, window: Window) -> np.ndarray:
        """One window as a crop (size, size, channels) float32."""
        image, limits = self.cache.get(window.key)
        crop = self.cache.normalisation.apply(cut_window(image, window), limits)
        return turned(resized(match_channels(crop, self.channels), self.size), window)


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


def turned(crop: np.ndarray, window: Window) -> np.ndarray:
    """The crop (S, S, ...) turned and mirrored as the window says."""
    crop = np.rot90(crop, window.turns)
    return crop[:, ::-1] if window.flip else crop
