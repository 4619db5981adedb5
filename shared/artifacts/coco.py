"""Write COCO annotations (Lin et al. 2014, arXiv:1405.0312) that pycocotools loads."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle

CELL = [{"id": 1, "name": "cell", "supercategory": ""}]
"""Categories of instances whose class is not known."""


def dataset(
    images: list[dict[str, Any]],
    annotations: Iterable[dict[str, Any]],
    categories: list[dict[str, Any]],
    description: str = "",
) -> dict[str, Any]:
    """The whole COCO file; images: dicts with id, file_name, height, width."""
    return {
        "info": {"description": description},
        "images": images,
        "categories": categories,
        "annotations": list(annotations),
    }


def label_rles(labels: np.ndarray) -> dict[int, dict[str, Any]]:
    """Label image (H, W) -> label -> compressed run-length encoding, `counts` as text, ascending by label.

    All objects in one pass over the pixels: runs of equal labels down the columns are cut out and sorted by label.
    """
    height, width = labels.shape
    flat = labels.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    stops = np.append(starts[1:], flat.size)
    of_object = flat[starts] > 0
    starts, stops = starts[of_object], stops[of_object]
    order = np.argsort(flat[starts], kind="stable")
    starts, stops = starts[order], stops[order]
    names, first = np.unique(flat[starts], return_index=True)
    bounds = np.append(first, len(starts))
    return {
        name: _encode(starts[low:high], stops[low:high], labels.shape)
        for name, low, high in zip(names.tolist(), bounds[:-1], bounds[1:], strict=True)
    }


def _encode(starts: np.ndarray, stops: np.ndarray, shape: tuple[int, ...]) -> dict[str, Any]:
    """Runs of an object, first and end in column order -> compressed run-length encoding."""
    height, width = shape
    edges = np.stack([starts, stops], axis=1).ravel()
    counts = np.diff(edges, prepend=0, append=height * width)  # background, object, background, ...
    if counts[-1] == 0:
        counts = counts[:-1]
    packed = rle.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode()}


def instance_annotations(
    labels: np.ndarray, image_id: int, first_id: int = 1, scores: Sequence[float] | np.ndarray | None = None
) -> list[dict[str, Any]]:
    """COCO annotations of one label image (H, W), ascending by label; `label` is its number there.

    `bbox` is x, y, width, height in px and `area` px²; scores: of the instances 1, 2, ...
    """
    found = []
    for number, (name, code) in enumerate(label_rles(labels).items()):
        row = {
            "id": first_id + number,
            "image_id": image_id,
            "category_id": CELL[0]["id"],
            "label": name,
            "segmentation": code,
            "area": int(rle.area(code)),
            "bbox": [int(value) for value in rle.toBbox(code)],
            "iscrowd": 0,
        }
        found.append(row | ({} if scores is None else {"score": round(float(scores[name - 1]), 4)}))
    return found
