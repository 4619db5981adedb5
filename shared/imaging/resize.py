"""Resize images and label images."""

import cv2
import numpy as np

RESIZABLE = (np.uint8, np.uint16, np.int16, np.float32, np.float64)
"""Pixel types that OpenCV resizes."""


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


def enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """Enlarge an image (H, W, C) by a factor, bicubic; the dtype stays where OpenCV can resize it, else float32."""
    if factor == 1:
        return image
    image = image if image.dtype in RESIZABLE else image.astype(np.float32)
    size = (image.shape[1] * factor, image.shape[0] * factor)
    channels = (np.ascontiguousarray(image[..., c]) for c in range(image.shape[2]))
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_CUBIC) for plane in channels], axis=2)


def enlarge_labels(labels: np.ndarray, factor: int) -> np.ndarray:
    """Repeat the pixels of a label image (H, W): (H * factor, W * factor)."""
    return labels if factor == 1 else labels.repeat(factor, axis=0).repeat(factor, axis=1)


def reduce_labels(labels: np.ndarray, factor: int) -> np.ndarray:
    """Undo `enlarge_labels`: each pixel takes the label in the middle of its square, (H, W) -> (H / factor, ...).

    Objects that hold no such pixel vanish; the numbers of the others stay.
    """
    return labels if factor == 1 else np.ascontiguousarray(labels[factor // 2 :: factor, factor // 2 :: factor])
