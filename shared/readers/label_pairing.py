"""Tell label images from images by their names, and pair them up."""

import re
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from shared.artifacts import keys

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
MASK_FOLDERS = ("labels", "label", "masks", "mask", "ground_truth", "groundtruth", "gt")
PARTNER = re.compile(r"(?P<base>.+?)[_-](?:cp_)?(?P<ending>masks?|labels?)", re.IGNORECASE)
IMAGE_ENDINGS = ("", "_img", "_image", "-img", "-image")


class Pairing:
    """Tells label images from images."""

    def __init__(self, files: dict[PurePosixPath, Path], pictures: list[PurePosixPath]) -> None:
        self.files = files
        self.images = list(pictures)
        self.mask_of: dict[PurePosixPath, Path] = {}
        self.objects_of: dict[PurePosixPath, tuple[Path, ...]] = {}
        self.found: list[str] = []
        self.problems: list[tuple[str, str]] = []

    def _folders(self) -> dict[PurePosixPath, list[PurePosixPath]]:
        folders = defaultdict(list)
        for relative in self.images:
            folders[relative.parent].append(relative)
        return folders

    def object_folders(self) -> None:
        """ID/images/NAME.png with ID/masks/*.png, one mask per object, as in the Data Science Bowl 2018."""
        folders = self._folders()
        for folder, masks in folders.items():
            if folder.name.lower() not in ("masks", "mask"):
                continue
            beside = [folder.parent / name for name in _same_case(folders, folder.parent, IMAGE_FOLDERS)]
            pictures = [picture for place in beside for picture in folders[place]]
            if len(pictures) != 1 or (len(masks) == 1 and _base(masks[0]) == pictures[0].stem):
                continue
            self.objects_of[pictures[0]] = tuple(self.files[mask] for mask in masks)
            self.found.append("folders with one mask per object")
            taken = set(masks)
            self.images = [image for image in self.images if image not in taken]

    def masks(self) -> None:
        """Pairs within one folder, and across images/ and labels/ folders."""
        labels = [image for image in self.images if _mask_folder(image) is not None or PARTNER.fullmatch(image.stem)]
        taken = set(labels)
        self.images = [image for image in self.images if image not in taken]
        named: dict[tuple[PurePosixPath, str], list[PurePosixPath]] = defaultdict(list)
        for image in self.images:
            named[_lower(image.parent), image.stem].append(image)
        for label in sorted(labels, key=lambda label: (_rank(label), label)):
            partners = [image for place in _places(label) for image in named.get(place, [])]
            if not partners:
                self.problems.append((keys.printable(label), "label: by its name a label image, but it has no image"))
            elif partners[0] in self.mask_of or partners[0] in self.objects_of:
                text = f"label: {keys.printable(partners[0])} has another label image, which was taken"
                self.problems.append((keys.printable(label), text))
            else:
                self.mask_of[partners[0]] = self.files[label]
                self.found.append(_pair_name(partners[0], label))


def _lower(folder: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(str(folder).lower())


def _same_case(folders: dict[PurePosixPath, Any], parent: PurePosixPath, names: tuple[str, ...]) -> list[str]:
    return [folder.name for folder in folders if folder.parent == parent and folder.name.lower() in names]


def _mask_folder(path: PurePosixPath) -> int | None:
    """Position of the last folder that is named for label images."""
    parts = [part.lower() for part in path.parent.parts]
    return max((i for i, part in enumerate(parts) if part in MASK_FOLDERS), default=None)


def _base(path: PurePosixPath) -> str:
    match = PARTNER.fullmatch(path.stem)
    return match["base"] if match else path.stem


def _rank(label: PurePosixPath) -> int:
    """Which of several label images of one image is taken: masks before mask, labels, label."""
    match = PARTNER.fullmatch(label.stem)
    return ["masks", "mask", "labels", "label"].index(match["ending"].lower()) if match else -1


def _places(label: PurePosixPath) -> list[tuple[PurePosixPath, str]]:
    """(folder in lower case, stem) of images that a label image may belong to, the likeliest first."""
    folder, at = _lower(label.parent), _mask_folder(label)
    folders = []
    if at is not None:
        before, after = folder.parts[:at], folder.parts[at + 1 :]
        folders = [PurePosixPath(*before, name, *after) for name in IMAGE_FOLDERS] + [PurePosixPath(*before, *after)]
    folders.append(folder)
    stems = dict.fromkeys([*(_base(label) + ending for ending in IMAGE_ENDINGS), label.stem])
    return [(place, stem) for place in folders for stem in stems]


def _pair_name(image: PurePosixPath, label: PurePosixPath) -> str:
    match = PARTNER.fullmatch(label.stem)
    end = label.stem[len(match["base"]) :] if match else ""
    if image.parent != label.parent:
        at = _mask_folder(label)
        name = label.parent.parts[at] if at is not None else label.parent.name
        return f"images with {name}/NAME{end}{label.suffix}"
    base = match["base"] if match else label.stem
    return f"NAME{image.stem[len(base) :]}{image.suffix} with NAME{end}{label.suffix}"
