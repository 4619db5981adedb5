"""Merge the detections of overlapping tiles, so that an object seen in several tiles is found once.

Two tiles show the same picture where they overlap. There an object has the same box in both, also if one tile or both
cut it. So two boxes of a class are one object where their parts within the common area agree, IoU >= `iou`. Of an
object that some tile shows whole, that box stays; boxes of an object that every tile cuts are united. What is left
over, parts of objects at a tile's edge, is dropped where a box of another tile covers it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from shared.instances.detections import Detections, box_area, box_intersection

COVERED_FRACTION = 0.5
"""A cut box is a part of another one that covers this fraction of its area."""
_EDGE_FRACTION = 0.02
"""A box that ends this close to the edge of its tile, relative to the tile's side, counts as cut."""
Rectangle = tuple[float, float, float, float]
"""x0, y0, x1, y1; px of the image."""


def merge_tiles(
    tiles: Sequence[Rectangle], found: Sequence[Detections], size: tuple[int, int], iou: float
) -> Detections:
    """Merge what was found in each tile of an image of `size` (H, W).

    tiles: areas of the image, in any order; found: the detections of each, px of the image. Returns the objects,
    highest score first.
    """
    owner = np.repeat(np.arange(len(tiles)), [len(part) for part in found])
    joined = concatenate(found)
    areas = np.array(tiles, np.float32).reshape(-1, 4)
    joined = _clip(joined, areas[owner], size)
    keep = box_area(joined.boxes) > 0
    joined, owner = joined[keep], owner[keep]
    cut = _cut_boxes(joined.boxes, areas[owner], size)
    objects = _Objects(owner)
    pairs = sorted(_pairs(joined, owner, areas, iou), reverse=True)
    for _, first, second in pairs:
        objects.unite(first, second)
    merged, is_cut, tile = _one_box_each(joined, cut, owner, objects.groups())
    merged = merged[~_parts(merged, is_cut, tile)]
    return merged[np.argsort(-merged.scores, kind="stable")]


def concatenate(found: Sequence[Detections]) -> Detections:
    """Join the detections of several parts of an image."""
    if not found:
        return Detections.empty()
    boxes, scores, classes = (
        np.concatenate([getattr(part, name) for part in found]) for name in ("boxes", "scores", "classes")
    )
    return Detections(boxes, scores, classes, sum(part.full_tiles for part in found))


def _clip(found: Detections, tiles: np.ndarray, size: tuple[int, int]) -> Detections:
    """Clip each box to its tile (n, 4) and to the image."""
    low = np.maximum(tiles[:, :2], 0)
    high = np.minimum(tiles[:, 2:], np.array(size[::-1], np.float32))
    boxes = found.boxes.reshape(-1, 2, 2).clip(low[:, None], high[:, None]).reshape(-1, 4)
    return Detections(boxes, found.scores, found.classes, found.full_tiles)


def _cut_boxes(boxes: np.ndarray, tiles: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Say which boxes (n, 4) reach an edge of their tile (n, 4) beyond which the image continues: bool (n,)."""
    near = _EDGE_FRACTION * np.tile(tiles[:, 2:] - tiles[:, :2], 2)
    at_low, at_high = boxes[:, :2] - tiles[:, :2] < near[:, :2], tiles[:, 2:] - boxes[:, 2:] < near[:, 2:]
    inner_low, inner_high = tiles[:, :2] > 0, tiles[:, 2:] < np.array(size[::-1])
    return np.asarray(((at_low & inner_low) | (at_high & inner_high)).any(axis=1))


def _pairs(found: Detections, owner: np.ndarray, areas: np.ndarray, iou: float) -> Iterator[tuple[float, int, int]]:
    """Yield (IoU within the common area, first, second) of boxes of one class from two tiles that agree."""
    members = [np.flatnonzero(owner == i) for i in range(len(areas))] if len(areas) > 1 else []
    for i, j in _overlapping(areas):
        common = np.concatenate([np.maximum(areas[i, :2], areas[j, :2]), np.minimum(areas[i, 2:], areas[j, 2:])])
        parts, indices = [], []
        for tile in (i, j):
            boxes = found.boxes[members[tile]].reshape(-1, 2, 2).clip(common[:2], common[2:]).reshape(-1, 4)
            inside = box_area(boxes) > 0
            parts.append(boxes[inside])
            indices.append(members[tile][inside])
        shared = box_intersection(*parts)
        union = box_area(parts[0])[:, None] + box_area(parts[1])[None] - shared
        same = found.classes[indices[0]][:, None] == found.classes[indices[1]][None]
        for first, second in np.argwhere(same & (shared >= iou * union)):
            value = float(shared[first, second] / union[first, second])
            yield value, int(indices[0][first]), int(indices[1][second])


def _overlapping(areas: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the pairs i < j of areas (n, 4) that overlap."""
    for i, area in enumerate(areas):
        later = areas[i + 1 :]
        overlap = (np.maximum(later[:, :2], area[:2]) < np.minimum(later[:, 2:], area[2:])).all(axis=1)
        for j in np.flatnonzero(overlap):
            yield i, i + 1 + int(j)


@dataclass
class _Objects:
    """Groups of boxes that show one object, at most one box from each tile."""

    owner: np.ndarray

    def __post_init__(self) -> None:
        self._group = list(range(len(self.owner)))
        self._members = {i: [i] for i in self._group}
        self._tiles = {i: {int(tile)} for i, tile in enumerate(self.owner)}

    def unite(self, first: int, second: int) -> None:
        """Put two boxes into one group, unless a tile would be there twice."""
        a, b = self._group[first], self._group[second]
        if a == b or self._tiles[a] & self._tiles[b]:
            return
        for member in self._members[b]:
            self._group[member] = a
        self._members[a] += self._members.pop(b)
        self._tiles[a] |= self._tiles.pop(b)

    def groups(self) -> list[list[int]]:
        """Indices of the boxes of each group."""
        return list(self._members.values())


def _one_box_each(
    found: Detections, cut: np.ndarray, owner: np.ndarray, groups: list[list[int]]
) -> tuple[Detections, np.ndarray, np.ndarray]:
    """One box for each group; whether every box of the group was cut; the tile of the box that was chosen."""
    boxes, chosen, is_cut = [], [], []
    for group in groups:
        whole = [i for i in group if not cut[i]]
        best = max(whole or group, key=lambda i: (found.scores[i], -i))
        members = found.boxes[group]
        united = np.concatenate([members[:, :2].min(axis=0), members[:, 2:].max(axis=0)])
        boxes.append(found.boxes[best] if whole else united)
        chosen.append(best)
        is_cut.append(not whole)
    index = np.array(chosen, np.int64)
    merged = Detections(
        np.array(boxes, np.float32).reshape(-1, 4), found.scores[index], found.classes[index], found.full_tiles
    )
    return merged, np.array(is_cut, bool), owner[index]


def _parts(found: Detections, is_cut: np.ndarray, tile: np.ndarray) -> np.ndarray:
    """Say which cut boxes are parts of a box of the same class and another tile: bool (n,)."""
    is_part = np.zeros(len(found), bool)
    for i in np.flatnonzero(is_cut):
        box = found.boxes[i]
        near = (found.boxes[:, 2:] > box[:2]).all(axis=1) & (found.boxes[:, :2] < box[2:]).all(axis=1)
        others = np.flatnonzero(near & (tile != tile[i]) & (found.classes == found.classes[i]) & ~is_part)
        if len(others):
            covered = box_intersection(box[None], found.boxes[others])[0] / box_area(box)
            larger = box_area(found.boxes[others]) >= box_area(box)
            is_part[i] = bool((larger & (covered >= COVERED_FRACTION)).any())
    return is_part
