"""Cut random crops from an ImageSet for training. The crops of a step depend on (seed, step) alone."""

from dataclasses import dataclass

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.data.array_cache import ArrayCache
from shared.data.sampling import Mixture, mixture
from shared.imaging.appearance import appearance
from shared.imaging.normalise import match_channels
from shared.imaging.resize import resize
from shared.imaging.tiling import reflect_index
from shared.models.config import ModelInput

CACHE_BYTES = 2**30
"""Bytes of decoded images kept in memory."""
CROPS_PER_IMAGE = 4
"""Crops of a batch that come from one image, which is decoded once for them."""
Decoded = tuple[np.ndarray, list[tuple[float, float]]]
"""An image (H, W, C), and the limits that `Normalisation.apply` takes."""


@dataclass(frozen=True)
class Window:
    """A square of one image, and the orientation of the crop cut from it."""

    key: str
    y: int
    """First row, px. The window may reach beyond the image, which is reflected there."""
    x: int
    """First column, px."""
    side: int
    """px"""
    quarter_turns: int = 0
    """Counter-clockwise rotations by 90 degrees, 0 to 3."""
    flip: bool = False
    """Mirror left to right after the rotation."""


class Crops:
    """Normalised float32 crops with a model's number of channels."""

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
        """size: side of a crop in network input, px.

        scale_jitter: largest factor by which a crop shows the image larger or smaller. balanced: draw rare kinds of
        images more often than their share of the area, see `shared.data.sampling`.
        """
        self.reader, self.keys, self.size, self.input, self.scale_jitter = reader, keys, size, model_input, scale_jitter
        self.cache: ArrayCache[Decoded] = ArrayCache(cache_bytes, lambda item: item[0].nbytes)
        sizes = [(reader.entries[key].height, reader.entries[key].width) for key in keys]
        self._sizes = dict(zip(keys, sizes, strict=True))
        areas = np.array([h * w for h, w in sizes], np.float64)
        self.mixture = mixture(keys, areas, self._appearance) if balanced else Mixture(areas / areas.sum(), kinds=1)

    def image(self, key: str) -> Decoded:
        """Return an image and its normalisation limits, from memory or decoded."""
        return self.cache.get(key, lambda: self._decode(key))

    def _decode(self, key: str) -> Decoded:
        image = self.reader.read(key)
        return image, self.input.normalisation.limits(image)

    def _appearance(self, key: str) -> np.ndarray:
        return appearance(*self.image(key), self.input.normalisation)

    def windows(self, count: int, rng: np.random.Generator) -> list[Window]:
        """Draw random windows. Unless balanced, every pixel of the set is about equally likely."""
        chosen = rng.choice(len(self.keys), size=-(-count // CROPS_PER_IMAGE), p=self.mixture.probabilities)
        return [self._window(self.keys[chosen[i // CROPS_PER_IMAGE]], rng) for i in range(count)]

    def _window(self, key: str, rng: np.random.Generator) -> Window:
        side = round(self.size * self.input.downsample * self.scale_jitter ** rng.uniform(-1, 1))
        y, x = (int(rng.integers(max(1, length - side + 1))) for length in self._sizes[key])
        return Window(key, y, x, side, int(rng.integers(4)), bool(rng.integers(2)))

    def batch(self, count: int, rng: np.random.Generator, part: slice = slice(None)) -> np.ndarray:
        """Draw `count` crops and cut `part` of them: (n, size, size, channels) float32."""
        return np.stack([self.cut(window) for window in self.windows(count, rng)[part]])

    def cut(self, window: Window) -> np.ndarray:
        """Cut one crop (size, size, channels) float32."""
        image, limits = self.image(window.key)
        crop = self.input.normalisation.apply(cut_window(image, window), limits)
        return orient(resize(match_channels(crop, self.input.channels), (self.size, self.size)), window)


def cut_window(image: np.ndarray, window: Window) -> np.ndarray:
    """Return the window's pixels (side, side, ...), reflected beyond the image (H, W, ...), not yet oriented."""
    height, width = image.shape[:2]
    if window.y + window.side <= height and window.x + window.side <= width:
        return image[window.y : window.y + window.side, window.x : window.x + window.side]
    rows = reflect_index(window.y, window.y + window.side, height)
    columns = reflect_index(window.x, window.x + window.side, width)
    return image[rows[:, None], columns]


def orient(crop: np.ndarray, window: Window) -> np.ndarray:
    """Rotate and flip a crop (S, S, ...) as the window specifies."""
    crop = np.rot90(crop, window.quarter_turns)
    return crop[:, ::-1] if window.flip else crop
