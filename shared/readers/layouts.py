"""Recognise the layout of a source from file names: images, label images, annotations, classes, splits.

`recognise` lists a folder (or takes one file), tells images from label images and annotations, pairs them, and gives
each image its key, split, class and group. It decodes no image; it opens only .json and .xml files and
tables of classes.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from shared.artifacts.keys import assign_keys, printable
from shared.readers.classes.class_table import TABLE_SUFFIXES
from shared.readers.classes.listed_classes import ListedClasses
from shared.readers.decode.image_file import IMAGE_SUFFIXES
from shared.readers.folder_names import assign_classes, assign_splits_and_groups, group_by_name
from shared.readers.labels.annotation_pairing import AnnotationPairing
from shared.readers.labels.label_pairing import LabelImagePairing
from shared.readers.listing import list_files
from shared.readers.source_image import SourceImage

_SIDECAR_SUFFIXES = {"json", "xml", *TABLE_SUFFIXES}
"""Suffixes of files that are opened to see whether they hold labels."""


@dataclass
class Layout:
    """Images of a source with their labels."""

    images: list[SourceImage]
    """Ascending by key."""
    description: str
    """The recognised layout with counts, for people."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(file, reason) of labels that cannot be used, such as those without an image."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(folder or file, reason) that could not be listed."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Suffix -> number of files that are neither images nor labels."""
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """(file, remark) on what a name was taken for."""
    without_image: list[str] = field(default_factory=list)
    """Files named like label images whose image is missing."""


def recognise(source: Path, group_pattern: re.Pattern[str] | None = None) -> Layout:
    """List `source`, a folder or one file, and pair its files. Raises UserError where it cannot be listed.

    group_pattern: see `shared.readers.folder_names.group_by_name`.
    """
    listing = list_files(source)
    files = listing.files
    by_kind, special = _by_kind(files)
    label_images = LabelImagePairing(files, by_kind.pop("image", []))
    if len(files) > 1 or not source.is_file():
        label_images.pair_object_masks()
        label_images.pair_label_images()
        label_images.pair_by_relation()
    images = label_images.source_images()
    annotations, listed = AnnotationPairing(images), ListedClasses(images)
    for image, name, relative in annotations.add_coco([(one, files[one]) for one in by_kind.pop("json", [])]):
        listed.add(image, name, relative)
    annotations.add_voc([(one, files[one]) for one in by_kind.pop("xml", [])])
    classes = assign_classes(images)
    assign_splits_and_groups(images)
    for suffix in sorted(TABLE_SUFFIXES):
        for relative in by_kind.pop(suffix, []):
            listed.add_table(files[relative], relative)
    listed.assign()
    named = group_by_name(images, group_pattern) if group_pattern else None
    assign_keys(images)
    found = Counter(label_images.found) + annotations.found + listed.found
    ignored = {kind: len(others) for kind, others in by_kind.items()} | annotations.ignored | (+listed.ignored)
    return Layout(
        sorted(images, key=lambda image: image.key),
        _describe(source, images, found, classes, named),
        sorted(label_images.problems + annotations.problems + listed.problems + special),
        listing.unreadable,
        dict(sorted(ignored.items())),
        label_images.remarks + annotations.remarks + listing.passed_over,
        [printable(label) for label in label_images.without_image],
    )


def _by_kind(
    files: dict[PurePosixPath, Path],
) -> tuple[dict[str, list[PurePosixPath]], list[tuple[str, str]]]:
    """Group files: `image`, else the suffix in lower case without its dot; also list sidecars that are no plain files.

    Opening a pipe or a device could wait for ever. Images are checked when they are opened.
    """
    by_kind: dict[str, list[PurePosixPath]] = defaultdict(list)
    special = []
    for relative, path in files.items():
        suffix = relative.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            by_kind["image"].append(relative)
        elif suffix.lstrip(".") in _SIDECAR_SUFFIXES and not path.is_file():
            special.append((printable(relative), "label: not a regular file"))
        else:
            by_kind[suffix.lstrip(".")].append(relative)
    return by_kind, special


def _describe(
    source: Path, images: list[SourceImage], found: Counter[str], classes: list[str], named: int | None
) -> str:
    """named: images whose names hold their group; None without a pattern."""
    folders = {image.relative.parent for image in images}
    parts = ["one file" if source.is_file() else "flat folder" if len(folders) < 2 else f"{len(folders)} folders"]
    parts += [f"{name} ({count} {'image' if count == 1 else 'images'})" for name, count in sorted(found.items())]
    if classes:
        parts.append(f"class folders {', '.join(classes)}")
    splits = Counter(image.split for image in images)
    if set(splits) - {"train"}:
        parts.append(
            "split " + ", ".join(f"{name} {splits[name]}" for name in ("train", "val", "test") if splits[name])
        )
    if named is not None:
        groups = len({image.group for image in images if image.group_in_name})
        parts.append(f"{groups} groups in the names of {named} of {len(images)} images")
    if not (found or classes):
        parts.append("no labels")
    return "; ".join(parts)
