"""Read files of annotations in COCO JSON (Lin et al. 2014, arXiv:1405.0312), as many programs write them.

Ids match as text or number. `annotations` may be a list or, as in LIVECell, a dict. What cannot be used is listed with
the reason; a damaged file is told from JSON of another kind by its keys. Single annotations:
`shared.readers.labels.outlines`.
"""

import json
import re
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.system.names import visible

MAX_JSON_BYTES = 2**30
"""Size above which a JSON file is ignored."""
_NUMBER = re.compile(r"\d{1,12}(\.\d*)?")
_MAX_ID_LENGTH = 100
"""Characters of an id that tell it from others."""
_KEYS = (b'"images"', b'"annotations"')
"""Keys in a file that was meant to be COCO: both of these, or one of them and one of the rows' keys."""
_KEYS_OF_ROWS = (b'"file_name"', b'"image_id"')


@dataclass
class CocoImage:
    """One image of a COCO file, with its annotations as they are in the file."""

    file_name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[Any, str] = field(default_factory=dict)
    """Category id as text -> name."""
    classes: list[str] = field(default_factory=list)
    """Classes of the whole image: of annotations with neither box nor outline, and of a field of the image."""
    has_objects: bool = True
    """Whether the file annotates objects; False where it holds classes of images alone."""
    has_outlines: bool = False
    """Whether the file has outlines: an image without any object then has an empty label image."""
    declared: tuple[int, int] | None = None
    """Height and width according to the file, px; None where it does not state them."""


@dataclass
class CocoFile:
    """The images of a COCO file, in its order."""

    images: list[CocoImage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What cannot be used."""


def read_coco(path: Path) -> CocoFile | None:
    """Read a COCO file; None for any other JSON, captions among it."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return None
        data, problems = path.read_bytes(), list[str]()
    except OSError as error:
        return CocoFile(problems=[f"cannot be read: {error.strerror or error}"])
    keys = [key in data for key in _KEYS]
    is_meant = all(keys) or (any(keys) and any(key in data for key in _KEYS_OF_ROWS))
    try:
        found = _load(data, problems)
        if isinstance(found, dict) and isinstance(found.get("annotations"), dict):
            found["annotations"] = list(found["annotations"].values())
        if not (isinstance(found, dict) and all(isinstance(found.get(key), list) for key in ("images", "annotations"))):
            return None
        return None if _is_of_captions(found["annotations"]) else _parse(found, problems)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        text = " ".join(str(error).split())[:120]
        return CocoFile(problems=[f"not readable COCO ({type(error).__name__}: {text})"]) if is_meant else None


def _load(data: bytes, problems: list[str]) -> Any:
    """Parse JSON in any form of Unicode, else in Latin-1, which is said."""
    try:
        return json.loads(data)
    except UnicodeDecodeError:
        problems.append("not in UTF-8: names are read as Latin-1")
        return json.loads(data.decode("latin-1"))


def _is_of_captions(rows: list[Any]) -> bool:
    """Whether the annotations are descriptions of images in words."""
    return bool(rows) and all(isinstance(row, dict) and "caption" in row and not row.get("bbox") for row in rows)


def _id(value: Any) -> Hashable:
    """An id as text, whether a file writes it as text or as a number; None where there is none."""
    if value is None or isinstance(value, (dict, list)):
        return None
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()[:_MAX_ID_LENGTH]


def _parse(data: dict[str, Any], problems: list[str]) -> CocoFile:
    file = CocoFile(problems=problems)
    categories = _categories(data.get("categories") or [], file.problems)
    by_id: dict[Hashable, list[CocoImage]] = {}
    usable: dict[Hashable, CocoImage] = {}
    for position, row in enumerate(data["images"], 1):
        if not (isinstance(row, dict) and row.get("file_name") and _id(row.get("id")) is not None):
            file.problems.append(f"image {position} has no file_name or no id; its annotations are dropped")
            continue
        image = CocoImage(str(row["file_name"]), [], categories, _classes_of_fields(row, categories))
        image.declared = _declared_size(row)
        by_id.setdefault(_id(row["id"]), []).append(image)
    for number, images in by_id.items():
        if len({image.file_name for image in images}) == 1:
            file.images.append(images[0])
            usable[number] = images[0]
    lost = _add_rows(data["annotations"], usable)
    for number, images in by_id.items():
        if number not in usable:
            names = ", ".join(image.file_name for image in images)
            text = f"the image id {number} is not unique, it stands for {names}"
            file.problems.append(f"{text}; their {lost.pop(number, 0)} annotations cannot be told apart")
    file.problems += [
        f"annotations without an image id: {count}"
        if number is None
        else f"annotations of the image id {number}, which no image has: {count}"
        for number, count in lost.items()
    ]
    _take_classes(file)
    has_outlines = any(row.get("segmentation") for image in file.images for row in image.rows)
    for image in file.images:
        image.has_outlines = has_outlines
    return file


def _declared_size(row: dict[str, Any]) -> tuple[int, int] | None:
    sides = [row.get(name) for name in ("height", "width")]
    stated = [str(side) for side in sides if isinstance(side, (int, float, str))]
    known = [int(float(side)) for side in stated if _NUMBER.fullmatch(side) and 0 < float(side) < 2**31]
    return (known[0], known[1]) if len(known) == 2 else None


def _categories(rows: list[Any], problems: list[str]) -> dict[Any, str]:
    """Category id as text -> name; an id with several names is left out."""
    names: dict[Hashable, set[str]] = {}
    for row in rows:
        if isinstance(row, dict) and (number := _id(row.get("id"))) is not None:
            names.setdefault(number, set()).add(visible(str(row.get("name") or number)))
    for number, several in names.items():
        if len(several) > 1:
            problems.append(
                f"the category id {number} stands for {', '.join(sorted(several))}; its annotations are dropped"
            )
    return {number: found.pop() if len(found) == 1 else "" for number, found in names.items()}


def _add_rows(rows: list[Any], images: dict[Hashable, CocoImage]) -> Counter[Hashable]:
    """Give each annotation to its image; count those without one by their image id."""
    lost: Counter[Hashable] = Counter()
    by_number: dict[str, list[Hashable]] = {}
    for known in images:
        by_number.setdefault(_without_zeros(known), []).append(known)
    for row in rows:
        number = _id(row.get("image_id")) if isinstance(row, dict) else None
        alike = by_number.get(_without_zeros(number), [])
        if number not in images and len(alike) == 1:
            number = alike[0]
        if number in images:
            images[number].rows.append(row)
        else:
            lost[number] += 1
    return lost


def _without_zeros(number: Hashable) -> str:
    """An id without leading zeros: 1 for 000001."""
    return str(int(str(number))) if str(number).isdecimal() else str(number)


def _take_classes(file: CocoFile) -> None:
    """Where no annotation of the file has a box or an outline, each one is the class of its image."""
    rows = [row for image in file.images for row in image.rows]
    if any(row.get("bbox") or row.get("segmentation") for row in rows):
        return
    if points := sum(bool(row.get("keypoints")) for row in rows):
        file.problems.append(f"{points} annotations are points (keypoints) without box or outline, which are not read")
        file.images = []
        return
    has_classes = bool(rows) or any(image.classes for image in file.images)
    for image in file.images:
        image.has_objects = not has_classes
        for row in image.rows:
            name = category(row, image.categories)
            if name is None:
                file.problems.append(f"the class of {image.file_name}: {unknown(row)}")
            else:
                image.classes.append(name)
        image.rows = []


def _classes_of_fields(row: dict[str, Any], categories: dict[Any, str]) -> list[str]:
    """Classes that the entry of an image itself states."""
    values = [row[name] for name in ("category_id", "category", "class", "label", "tags") if row.get(name) is not None]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    named = [value for value in flat if isinstance(value, (str, int))]
    return list(dict.fromkeys(categories.get(_id(value), visible(str(value))) for value in named))


def category(row: dict[str, Any], categories: dict[Any, str]) -> str | None:
    """Name of an annotation's category; its id in a file without names, None where the file does not name it."""
    number = _id(row.get("category_id", "object"))
    return (categories.get(number) or None) if categories else visible(str(number))


def unknown(row: dict[str, Any]) -> str:
    """Say that an annotation's category has no name."""
    return f"the category {row.get('category_id')} is none of the file's categories"
