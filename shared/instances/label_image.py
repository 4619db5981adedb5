"""Operate on label images and masks: fill holes, renumber, drop small objects."""

import math

import cv2
import numpy as np

ROWS = 512
"""Rows that are read at a time where a whole image would not fit twice."""


def fill_holes(mask: np.ndarray, max_area: int) -> np.ndarray:
    """Fill background of at most `max_area` px² that foreground encloses; what touches the image's border is no hole.

    mask: (H, W) uint8 {0, 1}; returns a new one.
    """
    count, holes = cv2.connectedComponents(1 - mask, connectivity=8, ltype=cv2.CV_32S)
    start, length, name = runs_of(holes)
    fill = np.bincount(name, length, count) <= max_area
    for border in (holes[0], holes[-1], holes[:, 0], holes[:, -1]):
        fill[border] = False
    start, length = start[fill[name]], length[fill[name]]
    filled = mask.copy()
    filled.ravel()[np.repeat(start - np.cumsum(length) + length, length) + np.arange(length.sum())] = 1
    return filled


def runs_of(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of equal numbers above 0 within rows, in reading order: flat index of the first pixel, length, number."""
    found = []
    for y in range(0, len(labels), ROWS):
        strip = np.ascontiguousarray(labels[y : y + ROWS])
        change = np.ones(strip.shape, bool)
        np.not_equal(strip[:, 1:], strip[:, :-1], out=change[:, 1:])
        start = np.flatnonzero(change)
        length, name = np.diff(start, append=strip.size), strip.ravel()[start]
        inside = name > 0
        found.append((start[inside] + y * labels.shape[1], length[inside], name[inside]))
    start, length, name = (np.concatenate(column) for column in zip(*found, strict=True))
    return start, length, name


def typical_area(areas: np.ndarray) -> int:
    """The median over pixels of the area of the object they are in: specks hardly count. areas: (n,) px², n > 0."""
    return int(typical(areas, areas))


def typical(values: np.ndarray, areas: np.ndarray) -> float:
    """The median over pixels of a value of the object they are in; both (n,), areas in px², n > 0."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(areas[order])
    return float(values[order[np.searchsorted(reached, reached[-1] / 2)]])


def relabel(labels: np.ndarray, min_area: int = 0, min_area_share: float = 0.0) -> np.ndarray:
    """Number objects 1..n in reading order of their first pixel and drop those below `min_area` px².

    And those below min_area_share of the typical one's area, of those that are left.

    labels: (H, W) of integers >= 0; returns uint16, or uint32 above 65,535 objects.
    """
    strips = [slice(y, y + ROWS) for y in range(0, len(labels), ROWS)]
    top = max((int(labels[strip].max(initial=0)) for strip in strips), default=0)
    start, length, name = runs_of(labels)
    area = np.bincount(name, length, top + 1)
    large = area[1:][area[1:] >= max(min_area, 1)]
    min_area = max(min_area, math.ceil(min_area_share * typical_area(large)) if len(large) else 0)
    first = np.full(top + 1, labels.size, np.int64)
    first[name[::-1]] = start[::-1]  # of what is written to one place the last stays
    keep = np.flatnonzero((area >= max(min_area, 1)) & (np.arange(top + 1) > 0))
    keep = keep[np.argsort(first[keep])]
    table = np.zeros(top + 1, np.uint16 if len(keep) < 2**16 else np.uint32)
    table[keep] = np.arange(1, len(keep) + 1)
    numbered = np.empty(labels.shape, table.dtype)
    for strip in strips:
        numbered[strip] = np.take(table, labels[strip])
    return numbered
