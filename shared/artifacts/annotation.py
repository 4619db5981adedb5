"""Annotation: one object of an image; ImageClass: the class of a whole image; as a LabelSet holds them."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

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


Outcome = Literal["positive", "negative", "abstain"]
"""What gated inference makes of an image: it has what is looked for, it has not, or the model cannot tell."""


@dataclass(frozen=True)
class ImageClass:
    """The class of one image. All but the name belongs to a prediction."""

    name: str
    """Of a prediction, the most probable class, whatever the outcome."""
    score: float | None = None
    """Probability of that class, in [0, 1]."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Class -> probability in [0, 1], of every class; empty where not known."""
    outcome: Outcome | None = None
    """None where no decision was made."""
    reason: str = ""
    """Why the outcome is what it is, for people."""
    distance: float | None = None
    """Distance of the image from the training images, see `shared.models.classifier`."""


PROBABILITY_COLUMN = "p_"
"""Beginning of the columns of `classes.csv` that hold the probability of a class."""


def write_image_classes(path: Path, classes: Mapping[str, ImageClass]) -> None:
    """Write `classes.csv`: key, class, and the columns that any image has a value for, empty where it has none.

    Probabilities and distances have nine significant digits, which a float32 survives.
    """
    found = classes.values()
    optional = {
        "score": [item.score is not None for item in found],
        **{f"{PROBABILITY_COLUMN}{name}": [True] for name in sorted({n for item in found for n in item.probabilities})},
        "outcome": [item.outcome is not None for item in found],
        "reason": [bool(item.reason) for item in found],
        "distance": [item.distance is not None for item in found],
    }
    columns = ["key", "class", *(name for name, known in optional.items() if any(known))]
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, columns, restval="", extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        for key, item in classes.items():
            table.writerow({"key": key, "class": item.name, **_values(item)})


def _values(item: ImageClass) -> dict[str, Any]:
    chances = {f"{PROBABILITY_COLUMN}{name}": f"{value:.9g}" for name, value in item.probabilities.items()}
    distance = "" if item.distance is None else f"{item.distance:.9g}"
    score = None if item.score is None else round(float(item.score), 4)
    return {"score": score, "outcome": item.outcome, "reason": item.reason, "distance": distance} | chances


def read_image_classes(path: Path) -> dict[str, ImageClass]:
    """Read `classes.csv`: key -> class. Raises ValueError or KeyError where it is not one."""
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["key"]: _image_class(row) for row in csv.DictReader(stream, restkey="")}


def _image_class(row: Mapping[str, str]) -> ImageClass:
    start = len(PROBABILITY_COLUMN)
    chances = {n[start:]: float(v) for n, v in row.items() if n.startswith(PROBABILITY_COLUMN) and v}
    score, distance = (float(row[name]) if row.get(name) else None for name in ("score", "distance"))
    outcome: Any = row.get("outcome") or None
    if outcome not in (None, *get_args(Outcome)):
        raise ValueError(f"the outcome {outcome!r} is none of {', '.join(get_args(Outcome))}")
    return ImageClass(row["class"], score, chances, outcome, row.get("reason") or "", distance)


def clip_box(corners: tuple[float, float, float, float], size: tuple[int, int]) -> BoundingBox:
    """Clip corners (x0, y0, x1, y1) to an image of (height, width) px. Raises ImageError for a box without area."""
    if not all(math.isfinite(corner) for corner in corners):
        raise ImageError("the box has not four numbers")
    x0, x1 = (min(max(x, 0.0), float(size[1])) for x in corners[::2])
    y0, y1 = (min(max(y, 0.0), float(size[0])) for y in corners[1::2])
    if x1 <= x0 or y1 <= y0:
        is_box = corners[2] > corners[0] and corners[3] > corners[1]
        problem = f"box outside the image ({size[1]} x {size[0]} px)" if is_box else "degenerate box"
        raise ImageError(f"{problem}, x {corners[0]:g} to {corners[2]:g}, y {corners[1]:g} to {corners[3]:g}")
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
