"""Read boxes from Pascal VOC XML (Everingham et al. 2010, doi:10.1007/s11263-009-0275-4)."""

from pathlib import Path
from typing import Any

from defusedxml import ElementTree

from shared.artifacts.annotation import Annotation, clip_box
from shared.readers.labels.annotations import Annotations, single
from shared.system.errors import ImageError
from shared.system.names import visible

MAX_XML_BYTES = 64 * 2**20
"""Size above which an XML file is ignored."""


def is_voc(path: Path) -> bool:
    """Return whether an XML file is a Pascal VOC annotation."""
    try:
        return path.stat().st_size <= MAX_XML_BYTES and _root(path).tag == "annotation"
    except Exception:  # errors of defusedxml and expat, OSError, UnicodeError
        return False


def _root(path: Path) -> Any:
    """Parse a file; one that names no encoding and is not in UTF-8 is read as Latin-1."""
    data = path.read_bytes()
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError:
        if data.lstrip().startswith(b"<?xml"):
            raise
        return ElementTree.fromstring(data.decode("latin-1"))


def voc_annotations(path: Path, size: tuple[int, int]) -> Annotations:
    """Return the valid boxes of an image of (height, width) px, and what is dropped.

    x = xmin and width = xmax - xmin, as labelImg and similar programs write them.
    """
    root = _root(path)
    _check_declared_size([root.findtext(f"size/{side}") for side in ("height", "width")], size)
    found, result = [], Annotations()
    for number, item in enumerate(root.iter("object"), 1):
        name = visible((item.findtext("name") or "object").strip())
        try:
            corners = [float(item.findtext(f"bndbox/{side}") or "nan") for side in ("xmin", "ymin", "xmax", "ymax")]
            box = clip_box((corners[0], corners[1], corners[2], corners[3]), size)
        except (ImageError, ValueError) as error:
            result.dropped.append(f"object {number} ({name}): {error}")
            result.lost += 1
            continue
        found.append(Annotation(name, box, box[2] * box[3]))
    result.found, repeated = single(found)
    if repeated:
        result.dropped.append(f"{repeated} objects repeat others, with the same name and box")
    return result


def _check_declared_size(texts: list[str | None], size: tuple[int, int]) -> None:
    """Compare height and width according to the file, where it states them, with those of the image."""
    try:
        height, width = (float(text or 0) for text in texts)
    except ValueError as error:
        raise ImageError(f"the size of the image is no number: {texts[1]} x {texts[0]}") from error
    if height and width and (height, width) != size:
        raise ImageError(f"annotates an image of {width:g} x {height:g} px; this one is {size[1]} x {size[0]}")
