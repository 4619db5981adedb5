"""Random crops of an ImageSet for training. What a step gets follows from (seed, step) alone.

Augmentation fits microscopy: any of the eight flips and quarter turns or any angle, scale, brightness, contrast, gamma,
blur, noise of detector and photons; no hue.
"""

from collections import OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np

from shared.balance import Mixture, look, mixture
from shared.images import ImageReader
from shared.normalise import Normalisation, match_channels
from shared.tiling import reflect_index

CACHE_BYTES = 2**30


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


class ImageCache:
    """Decoded images in their own dtype with their normalisation limits, at most `limit` bytes of them.

    The least recently used go first. The image in hand is always kept, whatever its size.
    """

    def __init__(self, reader: ImageReader, normalisation: Normalisation, limit: int = CACHE_BYTES) -> None:
        self.reader, self.normalisation, self.limit = reader, normalisation, limit
        self.bytes = 0
        """Bytes held."""
        self._items: OrderedDict[str, tuple[np.ndarray, list[tuple[float, float]]]] = OrderedDict()

    def get(self, key: str) -> tuple[np.ndarray, list[tuple[float, float]]]:
        """Image (H, W, C) and the limits that `Normalisation.apply` takes."""
        if key in self._items:
            self._items.move_to_end(key)
            return self._items[key]
        image = self.reader.read(key)
        while self._items and self.bytes + image.nbytes > self.limit:
            _, (old, _) = self._items.popitem(last=False)
            self.bytes -= old.nbytes
        self._items[key] = image, self.normalisation.limits(image)
        self.bytes += image.nbytes
        return self._items[key]


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

        balanced: rare kinds of images more often than their area's share, see `shared.balance`.
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


def jitter_intensity(crop: np.ndarray, rng: np.random.Generator, strength: float = 0.3) -> np.ndarray:
    """Random contrast, brightness and gamma, the same for all channels; values below 0 keep their sign.

    crop: (S, S, C) float32, normalised. strength 0.3: contrast and gamma within about 1/1.35 to 1.35, shift up to 0.1.
    """
    gamma, contrast = np.exp(rng.uniform(-strength, strength, 2))
    shift = rng.uniform(-strength, strength) / 3
    return (np.sign(crop) * np.abs(crop) ** gamma * contrast + shift).astype(np.float32)


def turned_square(
    crop: np.ndarray, size: int, *, centre: tuple[float, float], side: float, degrees: float = 0.0, flip: bool = False
) -> np.ndarray:
    """The square of `side` px about `centre` (y, x) of a crop (S, S, C), turned: (size, size, C) float32.

    degrees: counter-clockwise, as np.rot90; flip: mirrored left to right after turning. Outside, the crop goes on
    reflected. Resampled once, bilinear; where it is made smaller, by area before.
    """
    if side > size:
        small = max(1, round(len(crop) * size / side))
        ratio = small / len(crop)
        crop, side = resized(crop, small), side * ratio
        centre = (centre[0] + 0.5) * ratio - 0.5, (centre[1] + 0.5) * ratio - 0.5
    matrix = np.asarray(cv2.getRotationMatrix2D((centre[1], centre[0]), degrees, size / side), np.float64)
    matrix[:, 2] += (size - 1) / 2 - np.array(centre[::-1])
    if flip:
        matrix[0] = [0, 0, size - 1] - matrix[0]
    planes = [
        cv2.warpAffine(
            np.ascontiguousarray(crop[..., c]),
            matrix,
            (size, size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        for c in range(crop.shape[2])
    ]
    return np.stack(planes, axis=2)


def blurred(crop: np.ndarray, sigma: float) -> np.ndarray:
    """Out of focus: a Gaussian of `sigma` px over every channel of (S, S, C) float32."""
    planes = [cv2.GaussianBlur(np.ascontiguousarray(crop[..., c]), (0, 0), sigma) for c in range(crop.shape[2])]
    return np.stack(planes, axis=2)


def noisy(crop: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of the detector, and of the photons, whose variance grows with intensity (Foi et al. 2008, eq. 1 and 3).

    crop: (S, S, C) float32, normalised; level: standard deviation where the intensity is 1, of the detector alone half
    of it.
    """
    deviation = level * np.sqrt(0.25 + 0.75 * crop.clip(0, 1))
    return crop + deviation * rng.standard_normal(crop.shape, np.float32)


def augmented(crop: np.ndarray, rng: np.random.Generator, *, blur: float = 1.5, noise: float = 0.1) -> np.ndarray:
    """Another picture of the same place: other intensities, and `degraded`.

    crop: (S, S, C) float32, normalised.
    """
    return degraded(jitter_intensity(crop, rng), rng, blur=blur, noise=noise)


def degraded(crop: np.ndarray, rng: np.random.Generator, *, blur: float = 1.5, noise: float = 0.1) -> np.ndarray:
    """A worse picture of the same: in half of the cases out of focus, in half of them noisy.

    crop: (S, S, C) float32, normalised; blur: largest sigma, px; noise: largest level, see `noisy`.
    """
    out_of_focus, grainy, sigma, level = rng.random(4)
    if out_of_focus < 0.5:
        crop = blurred(crop, 0.3 + (blur - 0.3) * sigma)
    if grainy < 0.5:
        crop = noisy(crop, noise * level, rng)
    return crop.astype(np.float32, copy=False)
