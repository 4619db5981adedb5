"""Draw images as RGB, label images as colours or outlines, and boxes. Equal input gives equal bytes."""

import zlib
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from shared.imaging.normalise import Normalisation

TRUTH_COLOUR, PREDICTION_COLOUR = (80, 220, 120), (255, 220, 0)
"""RGB of the outlines on every page: truth green, prediction yellow."""
_DISPLAY = Normalisation(low=0.5, high=99.8, clip=(0.0, 1.0))
_GOLDEN_RATIO = 0.618033988749895
_MAX_NAMED = 40
"""Boxes up to which each carries the name of its class."""
_FONT_PX = 10
"""Height of the letters beside a box."""


def to_rgb8(image: np.ndarray) -> np.ndarray:
    """Convert an image (H, W, C) or (H, W) of any dtype to (H, W, 3) uint8.

    uint8 RGB stays unchanged; other images are stretched by percentiles, channel by channel. One channel becomes grey,
    two become red and green; of more than three, the first three are shown.
    """
    image = image if image.ndim == 3 else image[..., None]
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return image.copy()
    shown = np.rint(_DISPLAY(image[..., :3]) * 255).astype(np.uint8)
    if shown.shape[2] == 1:
        return np.repeat(shown, 3, axis=2)
    return np.pad(shown, ((0, 0), (0, 0), (0, 3 - shown.shape[2])))


def inner_boundaries(labels: np.ndarray, width: int = 1) -> np.ndarray:
    """Label image (H, W) -> (H, W) bool: pixels of objects beside another label or background, `width` px thick.

    The image's own border is not a boundary.
    """
    boundary = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    boundary[1:] |= down
    boundary[:-1] |= down
    boundary[:, 1:] |= right
    boundary[:, :-1] |= right
    if width > 1:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width - 1, 2 * width - 1))
        boundary = cv2.dilate(boundary.view(np.uint8), kernel).astype(bool)
    return boundary & (labels > 0)


def outline(
    rgb8: np.ndarray, labels: np.ndarray, colour: tuple[int, int, int] = PREDICTION_COLOUR, width: int = 1
) -> np.ndarray:
    """Draw the inner boundary of every object on a copy of `rgb8` (H, W, 3) uint8; labels: (H, W)."""
    if rgb8.shape[:2] != labels.shape:
        raise ValueError(f"the image has shape {rgb8.shape[:2]}, its labels are {labels.shape}")
    drawn = rgb8.copy()
    drawn[inner_boundaries(labels, width)] = colour
    return drawn


def outline_boxes(
    rgb8: np.ndarray,
    boxes: Iterable[Sequence[float]],
    colour: tuple[int, int, int] = PREDICTION_COLOUR,
    width: int = 1,
    scale: float = 1.0,
) -> np.ndarray:
    """Draw the inner border of every box on a copy of `rgb8` (H, W, 3) uint8.

    boxes: x and y of the upper left corner, width, height; px, divided by `scale` where the image was resized by it.
    """
    drawn = np.ascontiguousarray(rgb8.copy())
    for x, y, across, down in boxes:
        x0, y0, x1, y1 = (round(corner * scale) for corner in (x, y, x + across, y + down))
        for inset in range(width):
            cv2.rectangle(drawn, (x0 + inset, y0 + inset), (x1 - 1 - inset, y1 - 1 - inset), colour)
    return drawn


def outline_classes(rgb8: np.ndarray, boxes: Sequence[tuple[str, Sequence[float]]], scale: float = 1.0) -> np.ndarray:
    """Draw boxes on a copy of `rgb8` (H, W, 3) uint8, each class in its own colour; a few also have its name.

    boxes: class and box as in `outline_boxes`, which also explains `scale`.
    """
    drawn = rgb8.copy()
    for name in sorted({name for name, _ in boxes}):
        drawn = outline_boxes(drawn, [box for own, box in boxes if own == name], class_colour(name), scale=scale)
    for name, (x, y, *_) in boxes if len(boxes) <= _MAX_NAMED else ():
        left, top = round(x * scale) + 2, round(y * scale)
        place = left, top - 2 if top > _FONT_PX else top + _FONT_PX
        cv2.putText(drawn, name, place, cv2.FONT_HERSHEY_SIMPLEX, _FONT_PX / 28, class_colour(name), 1, cv2.LINE_AA)
    return drawn


def class_colour(name: str) -> tuple[int, int, int]:
    """Return the RGB colour of a class, which follows from its name alone."""
    red, green, blue = _bright_colours(np.array([[zlib.crc32(name.encode()) % 997]]))[0].tolist()
    return red, green, blue


def colour_labels(labels: np.ndarray) -> np.ndarray:
    """Label image (H, W) -> (H, W, 3) uint8: background black, label n always in the same colour.

    Hues step by the golden ratio, so that consecutive labels differ clearly; brightness alternates.
    """
    n = np.arange(1, int(labels.max(initial=0)) + 1)[:, None]
    return np.concatenate([np.zeros((1, 3), np.uint8), _bright_colours(n)])[labels]


def _bright_colours(n: np.ndarray) -> np.ndarray:
    """Numbers (n, 1) -> colours (n, 3) uint8."""
    hue = n * _GOLDEN_RATIO % 1 * 6
    saturation, value = 0.6 + n % 3 * 0.17, 255 - n % 2 * 50
    k = (np.array([5, 3, 1]) + hue) % 6  # HSV to RGB, Smith 1978; written out, as cv2 rounds by the number of colours
    return np.rint(value * (1 - saturation * np.clip(np.minimum(k, 4 - k), 0, 1))).astype(np.uint8)


def side_by_side(images: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    """Join images (H, W, 3) uint8 from left to right with white gaps; pad lower ones with white."""
    height = max(image.shape[0] for image in images)
    columns = []
    for image in images:
        padded = np.full((height, image.shape[1], 3), 255, np.uint8)
        padded[: image.shape[0]] = image
        columns += [padded, np.full((height, gap, 3), 255, np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def thumbnail(image: np.ndarray, side: int = 512) -> np.ndarray:
    """Downsample an image (H, W, ...) to at most `side` px in either direction; smaller ones stay unchanged."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
