"""Cut random crops with the boxes of their objects. The crops of a step depend on (seed, step) alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.data.boxes import Boxes, join
from shared.data.crops import CACHE_BYTES, Crops
from shared.imaging.normalise import match_channels
from shared.imaging.resize import resize
from shared.models.config import ModelInput

Size = tuple[int, int]
"""Height and width, px."""
BoxCrop = tuple[np.ndarray, Boxes]
"""A crop (H, W, channels) float32, normalised, and the boxes of its objects."""


@dataclass(frozen=True)
class BoxWindow:
    """A rectangle of one image, and the size and orientation of the crop made of it."""

    key: str
    y: int
    """First row, px. The window may reach beyond the image: the crop is 0 there."""
    x: int
    """First column, px."""
    height: int
    """px of the image."""
    width: int
    """px of the image."""
    size: Size
    """Height and width of the crop after rotation, px."""
    quarter_turns: int = 0
    """Counter-clockwise rotations by 90 degrees, 0 to 3."""
    flip: bool = False
    """Mirror left to right after the rotation."""


class BoxCrops:
    """Normalised float32 crops with a model's number of channels, and their boxes."""

    def __init__(
        self,
        reader: ImageReader,
        boxes: Mapping[str, Boxes],
        keys: list[str],
        *,
        size: Size,
        model_input: ModelInput,
        scale_jitter: float = 1.4,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """boxes: of some or all of `keys`, in px of the image; size: of a crop in network input.

        scale_jitter: largest factor by which a crop shows the image larger or smaller.
        """
        self.reader, self.boxes, self.keys, self.size, self.input = reader, boxes, keys, size, model_input
        self.scale_jitter = scale_jitter
        self._crops = Crops(reader, keys, size=max(size), model_input=model_input, cache_bytes=cache_bytes)

    def windows(
        self, count: int, rng: np.random.Generator, size: Size | None = None, zoom: float = 1.0
    ) -> list[BoxWindow]:
        """Draw random windows, every pixel of the set about equally likely.

        size: of the crops, else the set's; zoom: factor by which they show the image larger, before jitter.
        """
        chosen = rng.choice(len(self.keys), size=count, p=self._crops.mixture.probabilities)
        return [self._window(self.keys[i], rng, size or self.size, zoom) for i in chosen]

    def _window(self, key: str, rng: np.random.Generator, size: Size, zoom: float) -> BoxWindow:
        scale = self.input.downsample / zoom * self.scale_jitter ** rng.uniform(-1, 1)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        height, width = (round(side * scale) for side in (size if turns % 2 == 0 else size[::-1]))
        entry = self.reader.entries[key]
        y, x = (
            int(rng.integers(min(0, length - side), max(0, length - side) + 1))
            for length, side in ((entry.height, height), (entry.width, width))
        )
        return BoxWindow(key, y, x, height, width, size, turns, flip)

    def cut(self, window: BoxWindow) -> BoxCrop:
        """Cut one crop, with its boxes clipped to it."""
        image, limits = self._crops.image(window.key)
        boxes = self.boxes.get(window.key, Boxes.none())
        top, left = max(0, window.y), max(0, window.x)
        part = image[top : window.y + window.height, left : window.x + window.width]
        pixels = match_channels(self.input.normalisation.apply(part, limits), self.input.channels)
        _blank(pixels, boxes, top, left)
        before, size = (window.height, window.width), window.size
        if part.shape[:2] != before:
            padded = np.zeros((*before, pixels.shape[2]), np.float32)
            y, x = top - window.y, left - window.x
            padded[y : y + part.shape[0], x : x + part.shape[1]] = pixels
            pixels = padded
        resized = size if window.quarter_turns % 2 == 0 else size[::-1]
        crop = np.rot90(resize(pixels, resized), window.quarter_turns)
        crop = crop[:, ::-1] if window.flip else crop
        moved = boxes.shift(-window.y, -window.x).scale(resized[0] / before[0], resized[1] / before[1])
        return crop, moved.clip(resized).orient(window.quarter_turns, window.flip, resized)

    def mosaic(self, rng: np.random.Generator, zoom: float = 1.0) -> BoxCrop:
        """Join parts of four images to one crop: upper left and right, lower left and right of a random point.

        Bochkovskiy et al. 2020, arXiv:2004.10934, section 3.3. zoom: factor by which the parts show objects larger.
        """
        height, width = self.size
        y, x = (round(side * rng.uniform(0.3, 0.7)) for side in self.size)
        sizes = ((y, x), (y, width - x), (height - y, x), (height - y, width - x))
        return join_quadrants([self.cut(self.windows(1, rng, size, zoom)[0]) for size in sizes], self.size)


def join_quadrants(crops: list[BoxCrop], size: Size) -> BoxCrop:
    """Join the upper left, upper right, lower left and lower right crop to one of `size`, with all their boxes."""
    joined = np.empty((*size, crops[0][0].shape[2]), np.float32)
    (height, width), boxes = crops[0][0].shape[:2], []
    for i, (pixels, found) in enumerate(crops):
        y, x = height * (i // 2), width * (i % 2)
        joined[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
        boxes.append(found.shift(y, x))
    return joined, join(boxes)


def mixup(one: BoxCrop, other: BoxCrop) -> BoxCrop:
    """Return the mean of two crops, with the boxes of both (Zhang et al. 2018, arXiv:1710.09412)."""
    return (one[0] + other[0]) / 2, join([one[1], other[1]])


def _blank(pixels: np.ndarray, boxes: Boxes, top: int, left: int) -> None:
    """Set the pixels of ignored regions to 0, except within boxes; pixels begin at row `top` and column `left`."""
    if not len(boxes.ignored):
        return
    hidden = np.zeros(pixels.shape[:2], bool)
    for regions, value in ((boxes.ignored, True), (boxes.corners, False)):
        for x0, y0, x1, y1 in (regions - [left, top, left, top]).clip(0).round().astype(int):
            hidden[y0:y1, x0:x1] = value
    pixels[hidden] = 0
