"""Read annotations from COCO JSON (Lin et al. 2014, arXiv:1405.0312)."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shared.artifacts.coco import dataset
from shared.readers.annotations import Annotation, clipped
from shared.system.errors import ImageError

LARGEST_JSON = 2**30
KEPT = 0.9
"""Share of every object that must stay visible for a COCO image to become a label image as well."""


@dataclass
class CocoImage:
    """One image of a COCO file, with its annotations as they stand there."""

    file_name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[Any, str] = field(default_factory=dict)


def read_coco(path: Path) -> list[CocoImage] | None:
    """Images of a COCO file in its order; None for any other JSON."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            return None
        data = json.loads(path.read_bytes())
        if not (isinstance(data, dict) and isinstance(data["images"], list) and isinstance(data["annotations"], list)):
            return None
        categories = {row["id"]: str(row["name"]) for row in data.get("categories", [])}
        images = {row["id"]: CocoImage(str(row["file_name"]), [], categories) for row in data["images"]}
        for row in data["annotations"]:
            if row["image_id"] in images:
                images[row["image_id"]].rows.append(row)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return list(images.values())


def coco_annotations(image: CocoImage, size: tuple[int, int]) -> tuple[list[Annotation], list[str]]:
    """Annotations of an image of (height, width) px, and a reason for each that was dropped."""
    found, dropped = [], []
    for number, row in enumerate(image.rows, 1):
        try:
            found.append(_coco_annotation(row, image.categories, size))
        except ImageError as error:
            dropped.append(f"annotation {row.get('id', number)}: {error}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            dropped.append(f"annotation {number}: not as COCO has it ({type(error).__name__}: {error})")
    return found, dropped


def _coco_annotation(row: dict[str, Any], categories: dict[Any, str], size: tuple[int, int]) -> Annotation:
    from pycocotools import mask as coco_mask

    category = categories.get(row.get("category_id"), str(row.get("category_id", "object")))
    outline = row.get("segmentation")
    if not outline:
        x, y, w, h = (float(value) for value in row["bbox"])
        box = clipped((x, y, x + w, y + h), size)
        return Annotation(category, box, box[2] * box[3], None, int(row.get("iscrowd", 0)))
    rle = _rle(outline, size)
    area = float(coco_mask.area(rle))
    if area == 0:
        raise ImageError("its outline holds no pixel")
    x, y, w, h = (float(value) for value in coco_mask.toBbox(rle))
    text = {"size": list(size), "counts": rle["counts"].decode("ascii")}
    return Annotation(category, (x, y, w, h), area, text, int(row.get("iscrowd", 0)))


def _rle(outline: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Compressed run lengths of polygons or of run lengths, which must be of the image's size."""
    from pycocotools import mask as coco_mask

    height, width = size
    if isinstance(outline, list):
        polygons = [[float(value) for value in polygon] for polygon in outline if len(polygon) >= 6]
        if not polygons or any(len(polygon) % 2 for polygon in polygons):
            raise ImageError("its polygon has fewer than three corners")
        reach = 2 * max(size)
        if any(not -reach <= value <= 2 * reach for polygon in polygons for value in polygon):
            raise ImageError(f"its polygon lies far outside of the image ({width} x {height} px)")
        return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    if list(outline["size"]) != [height, width]:
        raise ImageError(f"its run lengths are for {outline['size']}, the image is {[height, width]}")
    counts = outline["counts"]
    counts = _run_lengths(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if sum(counts) != height * width or min(counts) < 0:
        raise ImageError("its run lengths do not add up to the image")
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def _run_lengths(text: str) -> list[int]:
    """COCO's compressed run lengths as numbers (`rleFrString` of its maskApi.c), checked as its C code does not."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ImageError("its run lengths are no text that COCO writes")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def rasterise(found: list[Annotation], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Label image (H, W) of the outlines and its confidence, 0 on crowds; None where that would lose something.

    Lost is a box without outline, or an object of which others cover more than a tenth. Small ones lie on top.
    """
    from pycocotools import mask as coco_mask

    objects = [item for item in found if not item.iscrowd]
    if any(item.rle is None for item in found) or not found:
        return None
    labels = np.zeros(size, np.uint32)
    for number in sorted(range(len(objects)), key=lambda i: (-objects[i].area, i)):
        labels[coco_mask.decode(objects[number].rle) > 0] = number + 1
    visible = np.bincount(labels.ravel(), minlength=len(objects) + 1)[1:]
    if any(n < KEPT * item.area for n, item in zip(visible, objects, strict=True)):
        return None
    crowds = [item for item in found if item.iscrowd]
    if not crowds:
        return labels, None
    conf = np.full(size, 255, np.uint8)
    for item in crowds:
        conf[(coco_mask.decode(item.rle) > 0) & (labels == 0)] = 0
    return labels, conf


def coco_dict(images: Iterable[tuple[str, tuple[int, int], list[Annotation]]]) -> dict[str, Any]:
    """(key, (height, width), annotations) in order of keys -> COCO dict; categories in alphabetical order from 1."""
    images = list(images)
    names = sorted({item.category for _, _, found in images for item in found})
    ids = {name: number for number, name in enumerate(names, 1)}
    rows: list[dict[str, Any]] = []
    for image_id, (_, _, found) in enumerate(images, 1):
        for item in found:
            row: dict[str, Any] = {"id": len(rows) + 1, "image_id": image_id, "category_id": ids[item.category]}
            row |= {"bbox": list(item.bbox), "area": item.area, "iscrowd": item.iscrowd}
            rows.append(row | ({"segmentation": item.rle} if item.rle else {}))
    entries = [
        {"id": number, "file_name": key, "height": size[0], "width": size[1]}
        for number, (key, size, _) in enumerate(images, 1)
    ]
    return dataset(entries, rows, [{"id": ids[name], "name": name} for name in names])
