"""Flow fields of instances: at each pixel a unit vector that leads to the middle of the pixel's instance.

Two fields: the gradient of heat that spreads from the middle (Stringer et al. 2021, Nature Methods 18:100), and the
gradient of the distance to the edge (Cutler et al. 2022, Nature Methods 19:1438), which leads to the middle line of a
long cell.

Instances lie apart on one canvas while they are computed, so the field of one does not depend on the others.
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from scipy.ndimage import find_objects

from shared.instances.bin_packing import Box, batches_by_area, pack
from shared.instances.distance import edge_distance

_CANVAS_PX = 2**22
"""px² of bounding boxes that are computed in one call."""
_MAX_RATIO = 1.25
"""Largest ratio of the sizes of instances that are computed together: they take the steps of the largest."""
_MEAN_OF_THREE = np.full(3, 1 / 3, np.float32)
_SMOOTHING = 1.0
"""px, standard deviation of the Gaussian by which the distance is smoothed."""


def heat_flow(labels: np.ndarray) -> np.ndarray:
    """Flow field of a label image (H, W) of integers >= 0: (2, H, W) float32, y and x, of length 1; 0 outside.

    Heat enters at the pixel of the instance that is nearest to its centroid, at every step, and spreads to the mean of
    3 x 3 pixels; it is 0 outside. The number of steps is about twice the sum of the instance's height and width.
    """
    return _flow(labels, _heat)


def distance_flow(labels: np.ndarray) -> np.ndarray:
    """Flow field of a label image (H, W) of integers >= 0: (2, H, W) float32, y and x, of length 1; 0 outside.

    It is the gradient of the smoothed distance to the instance's edge. The image's border is an edge here.
    """
    return _flow(labels, _distance)


def _flow(labels: np.ndarray, potential: Callable[[np.ndarray, list[Box]], np.ndarray]) -> np.ndarray:
    """Gradient of a potential, normalised. potential: mask (h, w) float32 {0, 1} and boxes in it -> (h, w) float32."""
    flow = np.zeros((2, *labels.shape), np.float32)
    for numbers, boxes in _of_similar_size(_boxes(labels)):
        places, (height, width) = pack(boxes, 2)
        places = [(slice(y.start + 1, y.stop + 1), slice(x.start + 1, x.stop + 1)) for y, x in places]
        mask = np.zeros((height + 1, width + 1), np.float32)
        for number, box, place in zip(numbers, boxes, places, strict=True):
            mask[place] = labels[box] == number
        vectors = _unit_gradient(potential(mask, places)) * mask
        for box, place in zip(boxes, places, strict=True):
            inside = mask[place] > 0
            for axis in range(2):
                np.copyto(flow[axis][box], vectors[axis][place], where=inside)
    return flow


def _boxes(labels: np.ndarray) -> dict[int, Box]:
    """Bounding box of each instance of a label image (H, W)."""
    found = enumerate(find_objects(labels.astype(np.int32, copy=False)), 1)
    return {number: box for number, box in found if box is not None}


def _of_similar_size(boxes: dict[int, Box]) -> Iterator[tuple[list[int], list[Box]]]:
    """Yield instances, their numbers and boxes, in groups of similar extent."""
    numbers = sorted(boxes, key=lambda number: _extent(boxes[number]))
    first = 0
    for last in range(1, len(numbers) + 1):
        if last < len(numbers) and _extent(boxes[numbers[last]]) <= _MAX_RATIO * _extent(boxes[numbers[first]]):
            continue
        group = numbers[first:last]
        for part in batches_by_area([boxes[number] for number in group], _CANVAS_PX):
            chosen = group[part.start : part.stop]
            yield chosen, [boxes[number] for number in chosen]
        first = last


def _extent(box: Box) -> int:
    """Sum of height and width with a margin of 1 px, px."""
    y, x = box
    return int(y.stop - y.start + x.stop - x.start) + 2


def _heat(mask: np.ndarray, boxes: list[Box]) -> np.ndarray:
    centres = tuple(np.array([_centre(mask[box], box) for box in boxes]).T)
    heat = np.zeros_like(mask)
    for _ in range(2 * max(map(_extent, boxes))):
        heat[centres] += 1
        heat = cv2.sepFilter2D(heat, -1, _MEAN_OF_THREE, _MEAN_OF_THREE, borderType=cv2.BORDER_CONSTANT)
        heat *= mask
    return heat


def _centre(mask: np.ndarray, box: Box) -> tuple[int, int]:
    """Pixel of a mask that is nearest to its rounded centroid; box: the mask's place."""
    y, x = np.nonzero(mask)
    nearest = np.argmin(np.square(y - round(y.mean())) + np.square(x - round(x.mean())))
    return box[0].start + int(y[nearest]), box[1].start + int(x[nearest])


def _distance(mask: np.ndarray, boxes: list[Box]) -> np.ndarray:
    del boxes
    distance = edge_distance(mask.astype(np.uint8))
    return cv2.GaussianBlur(distance, (0, 0), _SMOOTHING, borderType=cv2.BORDER_CONSTANT)


def _unit_gradient(potential: np.ndarray) -> np.ndarray:
    """Direction of the gradient of (h, w): (2, h, w) float32, y and x; 0 where it is constant and at the border."""
    gradient = np.zeros((2, *potential.shape), np.float64)
    gradient[0, 1:-1] = potential[2:] - potential[:-2]
    gradient[1, :, 1:-1] = potential[:, 2:] - potential[:, :-2]
    length = np.sqrt(np.square(gradient).sum(axis=0))
    return (gradient / np.where(length > 0, length, 1)).astype(np.float32)
