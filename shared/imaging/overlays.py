"""Pictures for people: images as RGB, label images as colours and as outlines. Equal input, equal bytes."""

from collections.abc import Sequence

import cv2
import numpy as np

from shared.imaging.normalise import Normalisation

DISPLAY = Normalisation(low=0.5, high=99.8, clip=(0.0, 1.0))
TRUTH, PREDICTION = (80, 220, 120), (255, 220, 0)
"""Outline colours used on every page: truth green, prediction yellow."""
GOLDEN_RATIO = 0.618033988749895


def to_rgb8(image: np.ndarray) -> np.ndarray:
    """(H, W, C) or (H, W) of any dtype -> (H, W, 3) uint8.

    uint8 RGB is left as it is; anything else is stretched by percentiles, channel by channel. One channel becomes
    grey, two become red and green, of more than three the first three are shown.
    """
    image = image if image.ndim == 3 else image[..., None]
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return image.copy()
    shown = np.rint(DISPLAY(image[..., :3]) * 255).astype(np.uint8)
    if shown.shape[2] == 1:
        return np.repeat(shown, 3, axis=2)
    return np.pad(shown, ((0, 0), (0, 0), (0, 3 - shown.shape[2])))


def edges(labels: np.ndarray, width: int = 1) -> np.ndarray:
    """(H, W) label image -> (H, W) bool: pixels of objects that touch another label or background, `width` px thick.

    The picture's own border is no edge.
    """
    edge = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    if width > 1:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width - 1, 2 * width - 1))
        edge = cv2.dilate(edge.view(np.uint8), kernel).astype(bool)
    return edge & (labels > 0)


def outline(
    rgb8: np.ndarray, labels: np.ndarray, colour: tuple[int, int, int] = PREDICTION, width: int = 1
) -> np.ndarray:
    """Draw the inner border of every object on a copy of `rgb8` (H, W, 3) uint8; labels: (H, W)."""
    if rgb8.shape[:2] != labels.shape:
        raise ValueError(f"the picture is {rgb8.shape[:2]}, its labels are {labels.shape}")
    drawn = rgb8.copy()
    drawn[edges(labels, width)] = colour
    return drawn


def colour_labels(labels: np.ndarray) -> np.ndarray:
    """(H, W) label image -> (H, W, 3) uint8: background black, label n always in the same colour.

    Hues step by the golden ratio, so that neighbouring numbers differ clearly; brightness alternates.
    """
    n = np.arange(1, int(labels.max(initial=0)) + 1)[:, None]
    hue = n * GOLDEN_RATIO % 1 * 6
    saturation, value = 0.6 + n % 3 * 0.17, 255 - n % 2 * 50
    k = (np.array([5, 3, 1]) + hue) % 6  # HSV to RGB, Smith 1978; written out, as cv2 rounds by the number of colours
    table = np.zeros((len(n) + 1, 3), np.uint8)
    table[1:] = np.rint(value * (1 - saturation * np.clip(np.minimum(k, 4 - k), 0, 1)))
    return table[labels]


def side_by_side(images: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    """Join (H, W, 3) uint8 pictures left to right with white gaps; lower ones are filled up with white."""
    height = max(image.shape[0] for image in images)
    columns = []
    for image in images:
        filled = np.full((height, image.shape[1], 3), 255, np.uint8)
        filled[: image.shape[0]] = image
        columns += [filled, np.full((height, gap, 3), 255, np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def thumbnail(image: np.ndarray, side: int = 512) -> np.ndarray:
    """A picture no larger than `side` px in either direction, area-averaged; smaller ones are left as they are."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
