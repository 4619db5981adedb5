"""Check the annotations of one image of a COCO file, and draw outlines into a label image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from shared.artifacts.annotation import Annotation, clip_box
from shared.readers.labels.annotations import Annotations, single
from shared.readers.labels.coco import CocoImage, category, unknown
from shared.readers.labels.numbering import smallest_dtype
from shared.system.errors import ImageError

MIN_VISIBLE_SHARE = 0.9
"""Share of an object that must stay visible in a label image where objects overlap."""
_MAX_HIDDEN_SHARE = 0.5
"""Share of the objects that are hidden more than that, from which on no label image is drawn."""
_ERRORS = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What rows of other forms than COCO's lead to."""
_MAX_OUTLINE_PX = 4_000_000
"""Length of an outline, px: what draws it needs memory in proportion."""


def coco_annotations(image: CocoImage, size: tuple[int, int]) -> Annotations:
    """Return the valid annotations of an image of (height, width) px, and what is dropped.

    Raises ImageError where the file describes an image of another size, or in other units than px.
    """
    if image.declared is not None and image.declared != size:
        (height, width), shown = image.declared, f"{size[1]} x {size[0]}"
        raise ImageError(f"the annotations are of an image of {width} x {height} px; this one is {shown}")
    if image.rows and all(_is_share(row.get("bbox")) and not row.get("segmentation") for row in image.rows):
        raise ImageError("its boxes lie within 0 to 1: shares of the image's size; give px")
    found, result = [], Annotations()
    for number, row in enumerate(image.rows, 1):
        try:
            found.append(_annotation(row, image.categories, size))
            continue
        except ImageError as error:
            result.dropped.append(f"annotation {row.get('id', number)}: {error}")
        except _ERRORS as error:
            result.dropped.append(f"annotation {number}: not valid COCO ({type(error).__name__}: {error})")
        result.lost += 1
        result.unsure += _place(row, size)
    result.found, repeated = single(found)
    if repeated:
        result.dropped.append(f"{repeated} annotations repeat others, with the same category and outline or box")
    return result


def _is_share(box: Any) -> bool:
    """Whether the numbers of a box are shares of an image's sides."""
    numbers = [value for value in box if isinstance(value, (int, float))] if isinstance(box, list) else []
    return len(numbers) == 4 and all(0 <= value <= 1 for value in numbers) and sum(numbers) > 0


def _place(row: dict[str, Any], size: tuple[int, int]) -> list[Annotation]:
    """Where a dropped annotation lies, as far as it can be told: by its outline, else by its box."""
    for part in ("segmentation", "bbox"):
        try:
            return [_annotation({part: row[part]}, {}, size)]
        except (ImageError, *_ERRORS):
            continue
    return []


def _annotation(row: dict[str, Any], categories: dict[Any, str], size: tuple[int, int]) -> Annotation:
    from pycocotools import mask as coco_mask

    name = category(row, categories)
    if name is None:
        raise ImageError(unknown(row))
    outline, is_crowd = _outline(row.get("segmentation")), int(row.get("iscrowd") or 0)
    if outline is None:
        x, y, w, h = (float(value) for value in row["bbox"])
        box = clip_box((x, y, x + w, y + h), size)
        return Annotation(name, box, box[2] * box[3], None, is_crowd)
    rle = _checked_rle(outline, size)
    area = float(coco_mask.area(rle))
    if area == 0:
        raise ImageError("the outline contains no pixel")
    x, y, w, h = (float(value) for value in coco_mask.toBbox(rle))
    text = {"size": list(size), "counts": rle["counts"].decode("ascii")}
    return Annotation(name, (x, y, w, h), area, text, is_crowd)


def _outline(value: Any) -> Any:
    """Bring an outline into one of COCO's forms: polygons, a list of run lengths, or run lengths; None without any.

    Also takes a polygon that is not in a list, corners as pairs, and run lengths in a list.
    """
    if not isinstance(value, list):
        return value or None
    parts = [part for part in value if part != [] and part is not None]
    if not parts:
        return None
    if all(isinstance(part, (int, float)) for part in parts):
        return [parts]
    if all(isinstance(part, list) and len(part) == 2 and not isinstance(part[0], list) for part in parts):
        return [[number for pair in parts for number in pair]]
    return [_flat(part) for part in parts]


def _flat(part: Any) -> Any:
    """A polygon of corners as pairs -> x, y, x, y, ...; anything else as it is."""
    is_paired = isinstance(part, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in part)
    return [number for pair in part for number in pair] if is_paired else part


def _checked_rle(outline: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Convert polygons, or run lengths of the image's size, to a compressed run-length encoding."""
    from pycocotools import mask as coco_mask

    height, width = size
    if isinstance(outline, list):
        polygons = [part for part in outline if not isinstance(part, dict)]
        parts = [_checked_rle(part, size) for part in outline if isinstance(part, dict)]
        parts += coco_mask.frPyObjects(_checked_polygons(polygons, size), height, width) if polygons else []
        return coco_mask.merge(parts)
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
    if (length := sum(map(_length, polygons))) > _MAX_OUTLINE_PX:
        raise ImageError(f"the outline of the polygon is {length:.0f} px long; at most {_MAX_OUTLINE_PX}")
    return polygons


def _length(polygon: list[float]) -> float:
    """Length of a closed polygon along its longer axis, px."""
    corners = np.array(polygon).reshape(-1, 2)
    return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())


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


@dataclass
class Drawing:
    """A label image that was drawn from outlines."""

    labels: np.ndarray | None = None
    """(H, W) of unsigned integers; None where there is no outline, or too much would be hidden."""
    conf: np.ndarray | None = None
    """(H, W) uint8, 0 where it is not known what belongs to an object; None where it is known everywhere."""
    remarks: list[str] = field(default_factory=list)


def rasterise(annotations: Annotations, size: tuple[int, int], *, has_outlines: bool = False) -> Drawing:
    """Draw outlines into a label image, smaller objects on top.

    Confidence is 0 on crowds, within the box of an object without outline, and where an object was dropped. Where all
    outlines are crowds, which some programs write for single objects, each is an object. has_outlines: whether an image
    without any annotation has an empty label image.
    """
    from pycocotools import mask as coco_mask

    found = annotations.found or []
    if not found:
        return Drawing(np.zeros(size, np.uint8)) if has_outlines else Drawing()
    outlined = [item for item in found if item.rle is not None]
    drawing = Drawing()
    if not outlined:
        return drawing
    if all(item.iscrowd for item in outlined):
        outlined = [replace(item, iscrowd=0) for item in outlined]
        drawing.remarks.append(f"all {len(outlined)} outlines are marked as crowds (iscrowd 1); read as single objects")
    elif crowds := sum(item.iscrowd for item in outlined):
        drawing.remarks.append(f"{crowds} of {len(outlined)} outlines are marked as crowds (iscrowd 1) and left out")
    objects = sorted((item for item in outlined if not item.iscrowd), key=lambda item: -item.area)
    labels = np.zeros(size, np.uint32)
    for number, item in enumerate(objects, 1):
        labels[coco_mask.decode(item.rle) > 0] = number
    visible = np.bincount(labels.ravel(), minlength=len(objects) + 1)[1:]
    hidden = sum(count < MIN_VISIBLE_SHARE * item.area for count, item in zip(visible, objects, strict=True))
    if hidden >= _MAX_HIDDEN_SHARE * len(objects) and hidden:
        drawing.remarks.append(f"no label image: {hidden} of {len(objects)} objects would be hidden by others in part")
        return drawing
    if hidden:
        drawing.remarks.append(f"{hidden} of {len(objects)} objects are hidden by others in part in the label image")
    drawing.labels = _in_order(labels, outlined, objects)
    drawing.conf = _confidence(found, annotations.unsure, labels)
    if boxes := sum(item.rle is None for item in found):
        drawing.remarks.append(f"{boxes} of {len(found)} objects have a box and no outline; their boxes are left out")
    return drawing


def _in_order(labels: np.ndarray, outlined: Sequence[Annotation], objects: Sequence[Annotation]) -> np.ndarray:
    """Number the objects that are visible in the order of the file; labels (H, W): in that of `objects`."""
    place = {id(item): number for number, item in enumerate(objects, 1)}
    visible = set(np.unique(labels).tolist())
    order = [place[id(item)] for item in outlined if place.get(id(item)) in visible]
    table = np.zeros(len(objects) + 1, smallest_dtype(len(order)))
    table[order] = np.arange(1, len(order) + 1)
    return table[labels]


def _confidence(
    found: Sequence[Annotation], unsure_places: Sequence[Annotation], labels: np.ndarray
) -> np.ndarray | None:
    """0 on crowds, in boxes without outline and in unsure places, where no object (H, W) is, 255 elsewhere.

    None without any of them.
    """
    from pycocotools import mask as coco_mask

    unsure = np.zeros(labels.shape, bool)
    every_is_crowd = all(item.iscrowd for item in found if item.rle is not None)
    lost = [replace(item, iscrowd=1) for item in unsure_places]
    for item in [*found, *lost]:
        if item.rle is None:
            x, y, width, height = item.bbox
            unsure[math.floor(y) : math.ceil(y + height), math.floor(x) : math.ceil(x + width)] = True
        elif item.iscrowd and (item in lost or not every_is_crowd):
            unsure |= coco_mask.decode(item.rle) > 0
    unsure &= labels == 0
    return np.where(unsure, 0, 255).astype(np.uint8) if unsure.any() else None
