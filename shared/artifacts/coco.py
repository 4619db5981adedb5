"""Write COCO annotations (Lin et al. 2014, arXiv:1405.0312) that pycocotools loads.

pycocotools is imported late: most stages read and write label images alone.
"""

import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.artifacts.annotation import Annotation

CELL: list[dict[str, Any]] = [{"id": 1, "name": "cell", "supercategory": ""}]
"""Categories of instances whose class is not known."""


def dataset(
    images: list[dict[str, Any]],
    annotations: Iterable[dict[str, Any]],
    categories: list[dict[str, Any]],
    description: str = "",
) -> dict[str, Any]:
    """Assemble a COCO file; images: dicts with id, file_name, height, width."""
    return {
        "info": {"description": description},
        "images": images,
        "categories": categories,
        "annotations": list(annotations),
    }


class AnnotationWriter:
    """Collect the annotations of many images for one COCO file, in memory that does not grow with their number.

    Images and annotations are numbered from 1 in the given order, categories from 1 in alphabetical order, which is
    known only at the end: until then the annotations wait in a file without a name. `file_name` is the key.
    """

    def __init__(self, folder: Path) -> None:
        """folder: for the file without a name."""
        self._waiting = tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder)  # noqa: SIM115
        self._images: list[dict[str, Any]] = []
        self._names: set[str] = set()
        self._count = 0

    @property
    def last_key(self) -> str | None:
        """Key of the image that was added last."""
        return self._images[-1]["file_name"] if self._images else None

    def add(self, key: str, size: tuple[int, int], annotations: Sequence[Annotation]) -> None:
        """Add an image of (height, width) px."""
        self._images.append({"id": len(self._images) + 1, "file_name": key, "height": size[0], "width": size[1]})
        for annotation in annotations:
            self._count += 1
            self._names.add(annotation.category)
            row = _row(annotation, self._count, len(self._images), 0)
            self._waiting.write(json.dumps([annotation.category, row]) + "\n")

    def write(self, path: Path) -> None:
        """Write the COCO file, keys sorted."""
        ids = {name: number for number, name in enumerate(sorted(self._names), 1)}
        rest = dataset(self._images, [], [{"id": ids[name], "name": name} for name in ids])
        del rest["annotations"]
        self._waiting.seek(0)
        with path.open("w", encoding="utf-8") as stream:
            stream.write('{"annotations": [')
            for number, line in enumerate(self._waiting):
                name, row = json.loads(line)
                stream.write((", " if number else "") + json.dumps(row | {"category_id": ids[name]}, sort_keys=True))
            stream.write("], " + json.dumps(rest, sort_keys=True)[1:] + "\n")

    def close(self) -> None:
        """Remove the file without a name."""
        self._waiting.close()


def _row(annotation: Annotation, annotation_id: int, image_id: int, category_id: int) -> dict[str, Any]:
    """Return the annotation as one entry of `annotations` in a COCO file."""
    row: dict[str, Any] = {"id": annotation_id, "image_id": image_id, "category_id": category_id}
    row |= {"bbox": list(annotation.bbox), "area": annotation.area, "iscrowd": annotation.iscrowd}
    if annotation.rle is not None:
        row["segmentation"] = annotation.rle
    if annotation.score is not None:
        row["score"] = round(float(annotation.score), 4)
    return row


def instance_annotations(
    labels: np.ndarray, image_id: int, first_id: int = 1, scores: Sequence[float] | np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Return the COCO annotations of one label image (H, W), ascending by label, which each row holds as `label`.

    `bbox` is x, y, width, height in px and `area` px²; scores: in [0, 1], of the instances 1, 2, ...
    """
    from pycocotools import mask as rle

    rows = []
    for number, (label, code) in enumerate(label_rles(labels).items()):
        x, y, width, height = (int(value) for value in rle.toBbox(code))
        score = None if scores is None else float(scores[label - 1])
        annotation = Annotation("cell", (x, y, width, height), int(rle.area(code)), code, score=score)
        rows.append(_row(annotation, first_id + number, image_id, CELL[0]["id"]) | {"label": label})
    return rows


def label_rles(labels: np.ndarray) -> dict[int, dict[str, Any]]:
    """Map each label of a label image (H, W), ascending, to its compressed run-length encoding, `counts` as text.

    One pass over the pixels serves all objects: runs of equal labels along the columns are found and sorted by label.
    """
    flat = labels.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    stops = np.append(starts[1:], flat.size)
    is_object = flat[starts] > 0
    starts, stops = starts[is_object], stops[is_object]
    order = np.argsort(flat[starts], kind="stable")
    starts, stops = starts[order], stops[order]
    names, first = np.unique(flat[starts], return_index=True)
    bounds = np.append(first, len(starts))
    return {
        name: _encode_runs(starts[low:high], stops[low:high], labels.shape)
        for name, low, high in zip(names.tolist(), bounds[:-1], bounds[1:], strict=True)
    }


def _encode_runs(starts: np.ndarray, stops: np.ndarray, shape: tuple[int, ...]) -> dict[str, Any]:
    """Encode the runs of one object, given by first and end index in column-major order."""
    from pycocotools import mask as rle

    height, width = shape
    edges = np.stack([starts, stops], axis=1).ravel()
    counts = np.diff(edges, prepend=0, append=height * width)  # background, object, background, ...
    if counts[-1] == 0:
        counts = counts[:-1]
    packed = rle.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode()}
