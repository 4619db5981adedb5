"""Recognise how a folder holds images and what is known about them, from names alone.

`recognise` lists a folder (or takes one file), tells images from label images and annotations, pairs them up, and
gives every image its key, split and group. Nothing is decoded; only .json and stray .xml files are opened.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from shared.artifacts import keys
from shared.readers import coco, voc
from shared.readers.coco import CocoImage
from shared.readers.decode.image_file import EXTENSIONS
from shared.readers.label_pairing import IMAGE_FOLDERS, MASK_FOLDERS, Pairing
from shared.readers.listing import list_files

SPLITS = {"train": "train", "training": "train", "valid": "val", "val": "val", "validation": "val"}
SPLITS |= {"test": "test", "testing": "test"}
STRUCTURE = {*SPLITS, *IMAGE_FOLDERS, *MASK_FOLDERS}
CLASS_NAMES = {"positive", "negative", "pos", "neg", "infected", "uninfected", "parasitized", "healthy", "normal"}
CLASS_NAMES |= {"abnormal", "benign", "malignant", "tumor", "tumour", "cancer", "control", "treated"}
"""Sibling folders with names such as these are classes even where no split folder is above them."""


@dataclass
class Item:
    """One image file, and what lies beside it."""

    path: Path
    relative: PurePosixPath
    key: str = ""
    split: str = "train"
    group: str = ""
    """Its folder (plate, well), without the folders that only say split, class or 'images'."""
    label: str | None = None
    """Class, from its folder."""
    mask: Path | None = None
    """Label image of the same name."""
    objects: tuple[Path, ...] = ()
    """One mask per object."""
    voc: Path | None = None
    """Pascal VOC xml."""
    coco: CocoImage | None = None


@dataclass
class Layout:
    """What was recognised."""

    items: list[Item]
    """Images, by key."""
    text: str
    """For people: which layout it is, with numbers."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(file, reason) of labels that belong to no image, and the like."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(folder or file, reason) that could not be listed."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Ending of files that are neither images nor labels -> how many."""


def recognise(source: Path) -> Layout:
    """List `source`, a folder or one file, and pair up what is in it. Raises UserError where it cannot be listed."""
    files, unreadable = list_files(source)
    by_kind: dict[str, list[PurePosixPath]] = defaultdict(list)
    for relative in files:
        ending = relative.suffix.lower()
        by_kind["image" if ending in EXTENSIONS else ending.lstrip(".")].append(relative)
    pairing = Pairing(files, by_kind["image"])
    if len(files) > 1 or not source.is_file():
        pairing.object_folders()
        pairing.masks()
    items = [Item(files[relative], relative) for relative in pairing.images]
    found = Counter(pairing.found)
    problems = pairing.problems
    by_path = {item.relative: item for item in items}
    for item in items:
        item.mask, item.objects = pairing.mask_of.get(item.relative), pairing.objects_of.get(item.relative, ())
    ignored = Counter({kind: len(found) for kind, found in by_kind.items() if kind not in ("image", "json", "xml")})
    for relative in by_kind["json"]:
        _coco(files[relative], relative, by_path, found, problems, ignored)
    for relative in by_kind["xml"]:
        _voc(files[relative], relative, by_path, found, problems, ignored)
    classes = _classes(items)
    _splits_and_groups(items)
    keys.assign(items)
    text = _describe(source, items, found, classes)
    return Layout(sorted(items, key=lambda i: i.key), text, sorted(problems), unreadable, dict(sorted(ignored.items())))


def _coco(
    path: Path,
    relative: PurePosixPath,
    items: dict[PurePosixPath, Item],
    found: Counter[str],
    problems: list[tuple[str, str]],
    ignored: Counter[str],
) -> None:
    """Attach the images of a COCO file; other JSON is ignored."""
    images = coco.read_coco(path)
    if images is None:
        ignored["json"] += 1
        return
    by_name = defaultdict(list)
    for item in items.values():
        by_name[item.relative.name].append(item)
    for image in images:
        name = PurePosixPath(image.file_name.replace("\\", "/"))
        exact = next(
            (items[place / name] for place in (relative.parent, *relative.parents) if place / name in items), None
        )
        others = by_name[name.name]
        match = exact or (others[0] if len(others) == 1 else None)
        if match is None or match.coco is not None:
            why = "is not there" if not others else "is annotated twice" if match else "could be any of several files"
            problems.append((keys.printable(relative), f"label: the image {image.file_name!r} {why}"))
            continue
        match.coco = image
        found["COCO json"] += 1


def _voc(
    path: Path,
    relative: PurePosixPath,
    items: dict[PurePosixPath, Item],
    found: Counter[str],
    problems: list[tuple[str, str]],
    ignored: Counter[str],
) -> None:
    """Attach a Pascal VOC file to the image of its name: beside it, else the only one anywhere."""
    same = [item for item in items.values() if item.relative.stem == relative.stem]
    beside = [item for item in same if item.relative.parent == relative.parent]
    match = beside or (same if len(same) == 1 else [])
    if not voc.is_voc(path):
        if match:
            problems.append(
                (keys.printable(relative), "label: no Pascal VOC annotation (cannot be read, or another XML)")
            )
        ignored["xml"] += 1
    elif not match:
        problems.append((keys.printable(relative), "label: a Pascal VOC annotation whose image is not there"))
    else:
        match[0].voc = path
        found["Pascal VOC xml"] += 1


def _split_at(relative: PurePosixPath) -> int | None:
    """Position of the first folder that names a split."""
    return next((i for i, part in enumerate(relative.parent.parts) if part.lower() in SPLITS), None)


def _classes(items: list[Item]) -> list[str]:
    """Set every image's class where folders are classes: the same two or more names below the split folders.

    Without split folders only siblings with names as in `CLASS_NAMES` are taken for classes: others may be plates.
    """
    below: dict[str, set[str]] = defaultdict(set)
    at: dict[PurePosixPath, int] = {}
    for item in items:
        folders = item.relative.parent.parts
        split = _split_at(item.relative)
        position = 0 if split is None else split + 1
        if position < len(folders) and folders[position].lower() not in STRUCTURE:
            at[item.relative] = position
            below["" if split is None else "/".join(folders[: split + 1])].add(folders[position])
    splits = {place: names for place, names in below.items() if place}
    names = set().union(*below.values()) if below else set()
    largest = max(splits.values(), key=len, default=set())
    by_split = len(largest) > 1 and "" not in below and all(found <= largest for found in splits.values())
    by_name = not splits and len(names) > 1 and {name.lower() for name in names} <= CLASS_NAMES
    if not (by_split or by_name):
        return []
    for item in items:
        if item.relative in at:
            item.label = keys.printable(item.relative.parent.parts[at[item.relative]]).replace(",", "_").strip()
    return sorted({item.label for item in items if item.label})


def _splits_and_groups(items: list[Item]) -> None:
    for item in items:
        folders = list(item.relative.parent.parts)
        split = _split_at(item.relative)
        if split is not None:
            item.split = SPLITS[folders[split].lower()]
        if item.label is not None:
            del folders[0 if split is None else split + 1]
        item.group = keys.printable("/".join(part for part in folders if part.lower() not in STRUCTURE))


def _describe(source: Path, items: list[Item], found: Counter[str], classes: list[str]) -> str:
    folders = {item.relative.parent for item in items}
    parts = ["one file" if source.is_file() else "flat folder" if len(folders) < 2 else f"{len(folders)} folders"]
    parts += [f"{name} ({number} images)" for name, number in sorted(found.items())]
    if classes:
        parts.append(f"class folders {', '.join(classes)}")
    splits = Counter(item.split for item in items)
    if set(splits) - {"train"}:
        parts.append(
            "split " + ", ".join(f"{name} {splits[name]}" for name in ("train", "val", "test") if splits[name])
        )
    if not (found or classes):
        parts.append("no labels")
    return "; ".join(parts)
