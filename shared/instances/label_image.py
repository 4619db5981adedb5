"""Operate on label images and masks: fill holes, renumber, drop small objects."""

import math

import cv2
import numpy as np

from shared.imaging.row_strips import row_slices


def fill_holes(mask: np.ndarray, max_area: int) -> np.ndarray:
    """Fill background of at most `max_area` px² that foreground encloses; returns a new mask.

    mask: (H, W) uint8 {0, 1}. Background that touches the image's border is not a hole.
    """
    count, holes = cv2.connectedComponents(1 - mask, connectivity=8, ltype=cv2.CV_32S)
    start, length, number = label_runs(holes)
    fill = np.bincount(number, length, count) <= max_area
    for border in (holes[0], holes[-1], holes[:, 0], holes[:, -1]):
        fill[border] = False
    start, length = start[fill[number]], length[fill[number]]
    filled = mask.copy()
    filled.ravel()[np.repeat(start - np.cumsum(length) + length, length) + np.arange(length.sum())] = 1
    return filled


def label_runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the runs of equal labels above 0 within rows, in reading order: flat index of the start, length, label."""
    found = []
    for rows in row_slices(len(labels)):
        strip = np.ascontiguousarray(labels[rows])
        change = np.ones(strip.shape, bool)
        np.not_equal(strip[:, 1:], strip[:, :-1], out=change[:, 1:])
        start = np.flatnonzero(change)
        length, number = np.diff(start, append=strip.size), strip.ravel()[start]
        inside = number > 0
        found.append((start[inside] + rows.start * labels.shape[1], length[inside], number[inside]))
    start, length, number = (np.concatenate(column) for column in zip(*found, strict=True))
    return start, length, number


def typical_area(areas: np.ndarray) -> int:
    """Median over pixels of the area of the object they belong to. areas: (n,) px², n > 0."""
    return int(area_weighted_median(areas, areas))


def area_weighted_median(values: np.ndarray, areas: np.ndarray) -> float:
    """Median over pixels of a value of the object they belong to, so that specks hardly count; both (n,), n > 0."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(areas[order])
    return float(values[order[np.searchsorted(reached, reached[-1] / 2)]])


def relabel(labels: np.ndarray, min_area: int = 0, min_area_share: float = 0.0) -> np.ndarray:
    """Drop small objects and number the others 1..n in reading order of their first pixel.

    labels: (H, W) of integers >= 0; returns uint16, or uint32 above 65,535 objects. Objects are dropped below
    `min_area` px², and below `min_area_share` of the typical area of those that remain.
    """
    top = max((int(labels[rows].max(initial=0)) for rows in row_slices(len(labels))), default=0)
    start, length, number = label_runs(labels)
    area = np.bincount(number, length, top + 1)
    large = area[1:][area[1:] >= max(min_area, 1)]
    min_area = max(min_area, math.ceil(min_area_share * typical_area(large)) if len(large) else 0)
    first = np.full(top + 1, labels.size, np.int64)
    first[number[::-1]] = start[::-1]  # the last value written to an index remains
    keep = np.flatnonzero((area >= max(min_area, 1)) & (np.arange(top + 1) > 0))
    keep = keep[np.argsort(first[keep])]
    table = np.zeros(top + 1, np.uint16 if len(keep) < 2**16 else np.uint32)
    table[keep] = np.arange(1, len(keep) + 1)
    numbered = np.empty(labels.shape, table.dtype)
    for rows in row_slices(len(labels)):
        numbered[rows] = np.take(table, labels[rows])
    return numbered
