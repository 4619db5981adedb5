"""Read boxes from Pascal VOC XML."""

from pathlib import Path
from typing import Any

from defusedxml import ElementTree

from shared.readers.annotations import Annotation, clipped
from shared.system.errors import ImageError

LARGEST_XML = 64 * 2**20
"""Bytes."""


def is_voc(path: Path) -> bool:
    """Whether an XML file is a Pascal VOC annotation."""
    try:
        return path.stat().st_size <= LARGEST_XML and _root(path).tag == "annotation"
    except Exception:  # defusedxml's own, expat's, OSError, UnicodeError
        return False


def _root(path: Path) -> Any:
    return ElementTree.parse(path).getroot()


def voc_annotations(path: Path, size: tuple[int, int]) -> tuple[list[Annotation], list[str]]:
    """Boxes of an image of (height, width) px, and a reason for each that was dropped.

    x = xmin and width = xmax - xmin, as labelImg and its kin write them.
    """
    root = _root(path)
    declared = [int(float(root.findtext(f"size/{side}") or 0)) for side in ("height", "width")]
    if all(declared) and declared != list(size):
        raise ImageError(f"annotates an image of {declared[1]} x {declared[0]} px; this one is {size[1]} x {size[0]}")
    found, dropped = [], []
    for number, item in enumerate(root.iter("object"), 1):
        name = (item.findtext("name") or "object").strip()
        try:
            corners = [float(item.findtext(f"bndbox/{side}") or "nan") for side in ("xmin", "ymin", "xmax", "ymax")]
            box = clipped((corners[0], corners[1], corners[2], corners[3]), size)
        except (ImageError, ValueError) as error:
            dropped.append(f"object {number} ({name}): {error}")
            continue
        found.append(Annotation(name, box, box[2] * box[3]))
    return found, dropped
