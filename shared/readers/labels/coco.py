"""Read and check annotations in COCO JSON (Lin et al. 2014, arXiv:1405.0312)."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shared.artifacts.annotation import Annotation, clip_box
from shared.system.errors import ImageError

MAX_JSON_BYTES = 2**30
"""Size above which a JSON file is ignored."""
MIN_VISIBLE_SHARE = 0.9
"""Share of every object that must stay visible for outlines to become a label image as well."""


@dataclass
class CocoImage:
    """One image of a COCO file, with its annotations as they are in the file."""

    file_name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[Any, str] = field(default_factory=dict)
    """Category id -> name."""
    classes: list[str] = field(default_factory=list)
    """Classes of the whole image: of annotations with neither box nor outline, and of a field of the image."""
    has_objects: bool = True
    """Whether the file annotates objects; False where it holds classes of images alone."""


@dataclass
class CocoFile:
    """The images of a COCO file, in its order."""

    images: list[CocoImage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What cannot be used."""


def read_coco(path: Path) -> CocoFile | None:
    """Read a COCO file; None for any other JSON."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return None
        data = json.loads(path.read_bytes())
        if not (isinstance(data, dict) and isinstance(data["images"], list) and isinstance(data["annotations"], list)):
            return None
        return _parse(data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _parse(data: dict[str, Any]) -> CocoFile:
    file = CocoFile()
    categories = _categories(data.get("categories") or [], file.problems)
    by_id: dict[Any, list[CocoImage]] = {}
    usable: dict[Any, CocoImage] = {}
    for row in data["images"]:
        image = CocoImage(str(row["file_name"]), [], categories, _classes_of_fields(row, categories))
        by_id.setdefault(row["id"], []).append(image)
    for number, images in by_id.items():
        if len({image.file_name for image in images}) == 1:
            file.images.append(images[0])
            usable[number] = images[0]
    lost = _add_rows(data["annotations"], usable)
    for number, images in by_id.items():
        if number not in usable:
            names = ", ".join(image.file_name for image in images)
            text = f"the image id {number} stands for {names}; their {lost.pop(number, 0)} annotations"
            file.problems.append(f"{text} cannot be told apart")
    file.problems += [f"annotations of the image id {number}, which no image has: {n}" for number, n in lost.items()]
    _take_classes(file)
    return file


def _categories(rows: list[dict[str, Any]], problems: list[str]) -> dict[Any, str]:
    """Category id -> name; an id with several names is left out."""
    names: dict[Any, set[str]] = {}
    for row in rows:
        names.setdefault(row["id"], set()).add(str(row["name"]))
    for number, several in names.items():
        if len(several) > 1:
            problems.append(
                f"the category id {number} stands for {', '.join(sorted(several))}; its annotations are dropped"
            )
    return {number: found.pop() if len(found) == 1 else "" for number, found in names.items()}


def _add_rows(rows: list[dict[str, Any]], images: dict[Any, CocoImage]) -> Counter[Any]:
    """Give each annotation to its image; count those without one by their image id."""
    lost: Counter[Any] = Counter()
    for row in rows:
        number = row.get("image_id")
        if number in images:
            images[number].rows.append(row)
        else:
            lost[number] += 1
    return lost


def _take_classes(file: CocoFile) -> None:
    """Where no annotation of the file has a box or an outline, each one is the class of its image."""
    rows = [row for image in file.images for row in image.rows]
    if any(row.get("bbox") or row.get("segmentation") for row in rows):
        return
    has_classes = bool(rows) or any(image.classes for image in file.images)
    for image in file.images:
        image.has_objects = not has_classes
        for row in image.rows:
            name = _category(row, image.categories)
            if name is None:
                file.problems.append(f"the class of {image.file_name}: {_unknown(row)}")
            else:
                image.classes.append(name)
        image.rows = []


def _classes_of_fields(row: dict[str, Any], categories: dict[Any, str]) -> list[str]:
    """Classes that the entry of an image itself states."""
    values = [row[name] for name in ("category_id", "category", "class", "label", "tags") if row.get(name) is not None]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return list(dict.fromkeys(categories.get(value, str(value)) for value in flat if isinstance(value, (str, int))))


def coco_annotations(image: CocoImage, size: tuple[int, int]) -> tuple[list[Annotation], list[str]]:
    """Return the valid annotations of an image of (height, width) px, and the reason for each that is dropped."""
    found, dropped = [], []
    for number, row in enumerate(image.rows, 1):
        try:
            found.append(_annotation(row, image.categories, size))
        except ImageError as error:
            dropped.append(f"annotation {row.get('id', number)}: {error}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            dropped.append(f"annotation {number}: not valid COCO ({type(error).__name__}: {error})")
    return found, dropped


def _annotation(row: dict[str, Any], categories: dict[Any, str], size: tuple[int, int]) -> Annotation:
    from pycocotools import mask as coco_mask

    category = _category(row, categories)
    if category is None:
        raise ImageError(_unknown(row))
    outline = row.get("segmentation")
    if not outline:
        x, y, w, h = (float(value) for value in row["bbox"])
        box = clip_box((x, y, x + w, y + h), size)
        return Annotation(category, box, box[2] * box[3], None, int(row.get("iscrowd", 0)))
    rle = _checked_rle(outline, size)
    area = float(coco_mask.area(rle))
    if area == 0:
        raise ImageError("the outline contains no pixel")
    x, y, w, h = (float(value) for value in coco_mask.toBbox(rle))
    text = {"size": list(size), "counts": rle["counts"].decode("ascii")}
    return Annotation(category, (x, y, w, h), area, text, int(row.get("iscrowd", 0)))


def _category(row: dict[str, Any], categories: dict[Any, str]) -> str | None:
    """Name of an annotation's category; its id in a file without names, None where the file does not name it."""
    number = row.get("category_id", "object")
    return (categories.get(number) or None) if categories else str(number)


def _unknown(row: dict[str, Any]) -> str:
    return f"the category {row.get('category_id')} is none of the file's categories"


def _checked_rle(outline: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Convert polygons, or run lengths of the image's size, to a compressed run-length encoding."""
    from pycocotools import mask as coco_mask

    height, width = size
    if isinstance(outline, list):
        return coco_mask.merge(coco_mask.frPyObjects(_checked_polygons(outline, size), height, width))
    if list(outline["size"]) != [height, width]:
        raise ImageError(f"the run lengths are for {outline['size']}, the image is {[height, width]}")
    counts = outline["counts"]
    counts = _run_lengths(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if sum(counts) != height * width or min(counts) < 0:
        raise ImageError("the run lengths do not add up to the image")
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def _checked_polygons(outline: list[Any], size: tuple[int, int]) -> list[list[float]]:
    polygons = [[float(value) for value in polygon] for polygon in outline if len(polygon) >= 6]
    if not polygons or any(len(polygon) % 2 for polygon in polygons):
        raise ImageError("the polygon has fewer than three corners")
    reach = 2 * max(size)
    if any(not -reach <= value <= 2 * reach for polygon in polygons for value in polygon):
        raise ImageError(f"the polygon lies far outside the image ({size[1]} x {size[0]} px)")
    return polygons


def _run_lengths(text: str) -> list[int]:
    """Decode COCO's compressed run lengths (`rleFrString` of its maskApi.c), with the checks that its C code omits."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ImageError("the run lengths are not in COCO's encoding")
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
    """Draw outlines into a label image (H, W), smaller objects on top, with a confidence image that is 0 on crowds.

    The confidence is None without crowds. Returns None where a label image would lose something: a box without
    outline, or more than a tenth of an object, hidden by others.
    """
    from pycocotools import mask as coco_mask

    objects = [item for item in found if not item.iscrowd]
    if any(item.rle is None for item in found) or not found:
        return None
    labels = np.zeros(size, np.uint32)
    for number in sorted(range(len(objects)), key=lambda i: (-objects[i].area, i)):
        labels[coco_mask.decode(objects[number].rle) > 0] = number + 1
    visible = np.bincount(labels.ravel(), minlength=len(objects) + 1)[1:]
    if any(count < MIN_VISIBLE_SHARE * item.area for count, item in zip(visible, objects, strict=True)):
        return None
    crowds = [item for item in found if item.iscrowd]
    if not crowds:
        return labels, None
    conf = np.full(size, 255, np.uint8)
    for item in crowds:
        conf[(coco_mask.decode(item.rle) > 0) & (labels == 0)] = 0
    return labels, conf
