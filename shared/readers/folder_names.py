"""Derive split, class and group of images from the names of their folders and files."""

import re
from collections import Counter, defaultdict
from pathlib import PurePosixPath

from shared.artifacts.keys import printable
from shared.readers.labels.label_names import IMAGE_FOLDERS, MASK_FOLDERS
from shared.readers.source_image import SourceImage

SPLITS = {"train": "train", "training": "train", "valid": "val", "val": "val", "validation": "val"}
SPLITS |= {"test": "test", "testing": "test"}
"""Folder name in lower case -> split."""
CLASS_NAMES = {"positive", "negative", "pos", "neg", "infected", "uninfected", "parasitized", "healthy", "normal"}
CLASS_NAMES |= {"abnormal", "benign", "malignant", "tumor", "tumour", "cancer", "control", "treated"}
"""Names of sibling folders that are classes even without a split folder above them."""
STRUCTURE = {*SPLITS, *IMAGE_FOLDERS, *MASK_FOLDERS}
"""Names of folders in lower case that say what kind of files they hold."""
_LABEL_WORDS = {"annotations", "annotation", "ann", "anns", "instances", "coco", "voc", "xml", "xmls", "json", "jsons"}
_LABEL_WORDS |= {"labels", "default", "export", "set", "data", "dataset"}
"""Words in the names of files and folders of labels that tell no folder of images from another."""


def assign_classes(images: list[SourceImage]) -> list[str]:
    """Set the class of each image where folders are classes, and return the classes in alphabetical order.

    Folders are classes where every split folder holds the same two or more names, or some of them; a single name must
    be in `CLASS_NAMES`. Without split folders only siblings with names in `CLASS_NAMES` are classes: others may be
    plates. Folders of one image each, some with label images, are samples, not classes.
    """
    position: dict[PurePosixPath, int] = {}
    below: dict[str, set[str]] = defaultdict(set)
    for image in images:
        folders = image.relative.parent.parts
        split = _split_position(image.relative)
        first = 0 if split is None else split + 1
        if first < len(folders) and folders[first].lower() not in STRUCTURE:
            position[image.relative] = first
            below["/".join(folders[:first])].add(folders[first])
    names = {name for found in below.values() for name in found}
    if not _are_classes(below) or (_hold_samples(images, position) and not _are_known(names)):
        return []
    for image in images:
        if image.relative in position:
            folder = image.relative.parent.parts[position[image.relative]]
            image.class_name = printable(folder).replace(",", "_").strip()
    return sorted({image.class_name for image in images if image.class_name})


def _are_classes(below: dict[str, set[str]]) -> bool:
    """Whether folder names are classes; below: split folder (empty: the source) -> names of the folders in it."""
    splits = [names for split, names in below.items() if split]
    if splits:
        largest = max(splits, key=len)
        are_classes = len(largest) > 1 or _are_known(largest)
        return are_classes and "" not in below and all(names <= largest for names in splits)
    names = below.get("", set())
    return len(names) > 1 and _are_known(names)


def _hold_samples(images: list[SourceImage], position: dict[PurePosixPath, int]) -> bool:
    """Whether the folders at these positions hold one image each, some of them with a label image."""
    folders = Counter(
        image.relative.parts[: position[image.relative] + 1] for image in images if image.relative in position
    )
    has_labels = any(image.mask_path or image.object_masks for image in images if image.relative in position)
    return has_labels and set(folders.values()) == {1}


def _are_known(names: set[str]) -> bool:
    return {name.lower() for name in names} <= CLASS_NAMES


def assign_splits_and_groups(images: list[SourceImage]) -> None:
    """Set split and group of each image; a group is the path without folders that name a split, class or 'images'."""
    for image in images:
        folders = list(image.relative.parent.parts)
        split = _split_position(image.relative)
        if split is not None:
            image.split = SPLITS[folders[split].lower()]
        if image.class_name is not None:
            del folders[0 if split is None else split + 1]
        image.group = printable("/".join(part for part in folders if part.lower() not in STRUCTURE))


def group_by_name(images: list[SourceImage], pattern: re.Pattern[str]) -> int:
    """Set the group of each image whose relative path `pattern` is found in, and return their number.

    The group is what the pattern's parentheses hold, joined by `_`, or all that it matches where it has none.
    """
    count = 0
    for image in images:
        if found := pattern.search(image.relative.as_posix()):
            parts = [part for part in found.groups() if part] or [found[0]]
            image.group, image.group_in_name = printable("_".join(parts)), True
            count += 1
    return count


def contradicts(named: PurePosixPath, image: PurePosixPath, labels: PurePosixPath | None = None) -> bool:
    """Whether a path in a file of labels, or the place of that file, says that an image is in another folder or split.

    named: the path; labels: the file. Folders count from the last on, without those that say what they hold.
    """
    stated = split_of(named) or (split_of(labels, with_name=True) if labels else "")
    actual = split_of(image)
    if stated and actual and stated != actual:
        return True
    folders = (_own_folders(path) for path in (named, image))
    return any(a != b for a, b in zip(*map(reversed, folders), strict=False))


def split_of(path: PurePosixPath, *, with_name: bool = False) -> str:
    """Split that a path is of: of its last folder that names one, such as `val2017`; empty without any.

    with_name: the name of the file counts first, where it says nothing else: `instances_train2017.json`.
    """
    if with_name:
        words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", path.stem)]
        named = [SPLITS[word] for word in words if word in SPLITS]
        if named and set(words) <= {*SPLITS, *_LABEL_WORDS}:
            return named[0]
    words = [re.sub(r"[\d_-]+$|(?<=[a-z])[_-].*$", "", part.lower()) for part in path.parent.parts]
    return next((SPLITS[word] for word in reversed(words) if word in SPLITS), "")


def _own_folders(path: PurePosixPath) -> list[str]:
    """Folders of a path in lower case, without those that say what they hold."""
    return [part for part in map(str.lower, path.parent.parts) if not _is_structure(part)]


def _is_structure(part: str) -> bool:
    words = [word for word in re.split(r"[^a-z]+", part) if word]
    return bool(words) and set(words) <= {*STRUCTURE, *_LABEL_WORDS}


def _split_position(relative: PurePosixPath) -> int | None:
    """Position of the first folder that names a split."""
    return next((i for i, part in enumerate(relative.parent.parts) if part.lower() in SPLITS), None)
