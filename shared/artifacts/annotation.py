"""Annotation: one object of an image with its box, category, outline and score, as a LabelSet holds it."""

import math
from dataclasses import dataclass
from typing import Any

from shared.system.errors import ImageError

BoundingBox = tuple[float, float, float, float]
"""x and y of the upper left corner, width, height; px."""


@dataclass(frozen=True)
class Annotation:
    """One object of an image. Objects may overlap, unlike the instances of a label image."""

    category: str
    bbox: BoundingBox
    area: float
    """px²: of the outline where there is one, else of the box."""
    rle: dict[str, Any] | None = None
    """COCO's compressed run-length encoding of the outline, `counts` as text; None for a box alone."""
    iscrowd: int = 0
    """1: the box or outline covers several objects that are not told apart."""
    score: float | None = None
    """Of a prediction, in [0, 1]."""


def clip_box(corners: tuple[float, float, float, float], size: tuple[int, int]) -> BoundingBox:
    """Clip corners (x0, y0, x1, y1) to an image of (height, width) px. Raises ImageError for a box without area."""
    if not all(math.isfinite(corner) for corner in corners):
        raise ImageError("the box has not four numbers")
    x0, x1 = (min(max(x, 0.0), float(size[1])) for x in corners[::2])
    y0, y1 = (min(max(y, 0.0), float(size[0])) for y in corners[1::2])
    if x1 <= x0 or y1 <= y0:
        raise ImageError(f"degenerate box, x {corners[0]:g} to {corners[2]:g}, y {corners[1]:g} to {corners[3]:g}")
    return x0, y0, x1 - x0, y1 - y0


def annotations_by_key(coco: dict[str, Any]) -> dict[str, list[Annotation]]:
    """Map the key (`file_name`) of each image of a COCO file written by this project to its annotations."""
    categories = {row["id"]: row["name"] for row in coco["categories"]}
    keys = {image["id"]: image["file_name"] for image in coco["images"]}
    found: dict[str, list[Annotation]] = {key: [] for key in keys.values()}
    for row in coco["annotations"]:
        x, y, width, height = row["bbox"]
        found[keys[row["image_id"]]].append(
            Annotation(
                categories[row["category_id"]],
                (x, y, width, height),
                row["area"],
                row.get("segmentation"),
                row["iscrowd"],
                row.get("score"),
            )
        )
    return found
