"""Distance maps: from the edge of a mask, and normalised for each instance."""

import cv2
import numpy as np

FAR = 2.0**20
"""px, beyond all images."""


def edge_distance(mask: np.ndarray) -> np.ndarray:
    """Distance of a mask's pixels (H, W) uint8 {0, 1} to the nearest pixel outside it, in px: (H, W) float32.

    `FAR` where every pixel is inside. Up to 2,000 px exactly the root of a whole number: OpenCV's own is so but for the
    last bit, which depends, with one thread, on where in memory it is written: two runs of one training would differ.
    """
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    np.minimum(distance, FAR, out=distance)
    np.square(distance, out=distance)
    np.rint(distance, out=distance)
    return np.sqrt(distance, out=distance)


def instance_distance(labels: np.ndarray) -> np.ndarray:
    """How deep a pixel lies in its object: (H, W) float32, 0 at the edge and outside, 1 at the object's deepest pixel.

    labels: (H, W) of integers >= 0, instances. The distance to the edge over its largest value in the object, so that
    small and large ones are equally plain; the image's border is no edge.
    """
    distance = edge_distance(separated(labels))
    inside = np.flatnonzero(labels)
    owner = labels.ravel()[inside]
    deepest = np.zeros(int(labels.max(initial=0)) + 1, np.float32)
    np.maximum.at(deepest, owner, distance.ravel()[inside])
    depth = np.zeros(labels.shape, np.float32)
    depth.ravel()[inside] = distance.ravel()[inside] / np.maximum(deepest[owner], 1)
    return depth


def separated(labels: np.ndarray) -> np.ndarray:
    """Foreground mask (H, W) uint8 {0, 1} of instances (H, W), with 1 px of background on either side where two touch.

    Of a label image that knows no instances (all 1) it is the image itself.
    """
    kernel = np.ones((3, 3), np.uint8)
    plane = labels.astype(np.float32)  # exact up to 2^24 instances
    low = cv2.erode(np.where(plane > 0, plane, np.inf).astype(np.float32), kernel)
    return ((plane > 0) & (low == plane) & (cv2.dilate(plane, kernel) == plane)).astype(np.uint8)
