"""Label images as COCO annotations (Lin et al. 2014, arXiv:1405.0312) that pycocotools loads."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from pycocotools import mask as rle

CATEGORIES = [{"id": 1, "name": "cell", "supercategory": ""}]


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
    encoded = {}
    for name, low, high in zip(names.tolist(), bounds[:-1], bounds[1:], strict=True):
        edges = np.stack([starts[low:high], stops[low:high]], axis=1).ravel()
        counts = np.diff(edges, prepend=0, append=flat.size)  # background, object, background, ...
        if counts[-1] == 0:
            counts = counts[:-1]
        packed = rle.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
        encoded[name] = {"size": [height, width], "counts": packed["counts"].decode()}
    return encoded


def annotations(labels: np.ndarray, image_id: int, first_id: int = 1) -> list[dict[str, Any]]:
    """COCO annotations of one label image (H, W), ascending by label; `label` is its number there.

    `bbox` is x, y, width, height in px and `area` px².
    """
    found = []
    for number, (name, code) in enumerate(label_rles(labels).items()):
        found.append(
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": CATEGORIES[0]["id"],
                "label": name,
                "segmentation": code,
                "area": int(rle.area(code)),
                "bbox": [int(value) for value in rle.toBbox(code)],
                "iscrowd": 0,
            }
        )
    return found


def dataset(images: list[dict[str, Any]], found: Iterable[dict[str, Any]], description: str = "") -> dict[str, Any]:
    """The whole COCO file; images: dicts with id, file_name, height, width."""
    return {
        "info": {"description": description},
        "images": images,
        "categories": CATEGORIES,
        "annotations": list(found),
    }
