"""Resize images."""

import cv2
import numpy as np


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image (H, W, C), of a dtype that OpenCV supports, to `size` (H, W): bilinear up, area-averaged down.

    Returns the image itself where it has that size already.
    """
    if image.shape[:2] == size:
        return image
    interpolation = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    channels = (np.ascontiguousarray(image[..., c]) for c in range(image.shape[2]))
    return np.stack([cv2.resize(plane, size[::-1], interpolation=interpolation) for plane in channels], axis=2)


def resize_into(image: np.ndarray, side: int, factor: float) -> np.ndarray:
    """Resize an image (H, W, C) float32 by `factor`, or by less where it does not fit into `side`, and centre it.

    Returns (side, side, C); what the image does not cover has the median of its outermost pixels.
    """
    factor = min(factor, side / max(image.shape[:2]))
    height, width = (min(side, max(1, round(length * factor))) for length in image.shape[:2])
    outermost = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    canvas = np.broadcast_to(np.median(outermost, axis=0), (side, side, image.shape[2])).astype(image.dtype)
    y, x = (side - height) // 2, (side - width) // 2
    canvas[y : y + height, x : x + width] = resize(image, (height, width))
    return canvas


def mean_pool(image: np.ndarray, factor: int) -> np.ndarray:
    """Downsample an image (H, W, C) float32 by the means of squares of `factor` px; H and W are multiples of it."""
    if factor == 1:
        return image
    height, width, channels = image.shape
    return image.reshape(height // factor, factor, width // factor, factor, channels).mean(axis=(1, 3))
