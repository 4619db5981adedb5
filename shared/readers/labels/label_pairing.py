"""Tell label images from images by their names, and find the image of each."""

import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

from shared.artifacts.keys import printable
from shared.readers.source_image import SourceImage

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
"""Names of folders that hold images, in lower case."""
MASK_FOLDERS = ("labels", "label", "masks", "mask", "ground_truth", "groundtruth", "gt")
"""Names of folders that hold label images, in lower case."""
_LABEL_STEM = re.compile(r"(?P<base>.+?)[_-](?:cp_)?(?P<ending>masks?|labels?)", re.IGNORECASE)
_IMAGE_ENDINGS = ("", "_img", "_image", "-img", "-image")


class LabelImagePairing:
    """Separate label images from images, and pair them."""

    def __init__(self, files: dict[PurePosixPath, Path], images: list[PurePosixPath]) -> None:
        """files: relative path -> path; images: those of them with an image suffix, label images among them."""
        self.files = files
        self.images = list(images)
        """Files that are images; each pairing method removes the label images it finds."""
        self.mask_of: dict[PurePosixPath, Path] = {}
        """Image -> its label image."""
        self.objects_of: dict[PurePosixPath, tuple[Path, ...]] = {}
        """Image -> one mask per object."""
        self.found: list[str] = []
        """Description of the naming rule of each labelled image."""
        self.problems: list[tuple[str, str]] = []
        """(file, reason) of label images that are not used."""

    def pair_object_masks(self) -> None:
        """Pair ID/images/NAME.png with ID/masks/*.png, one mask per object, as in the Data Science Bowl 2018."""
        folders: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
        for relative in self.images:
            folders[relative.parent].append(relative)
        for folder, masks in folders.items():
            if folder.name.lower() not in ("masks", "mask"):
                continue
            beside = [other for other in folders if other.parent == folder.parent and _is_image_folder(other)]
            images = [image for other in beside for image in folders[other]]
            if len(images) != 1 or (len(masks) == 1 and _base(masks[0]) == images[0].stem):
                continue
            self.objects_of[images[0]] = tuple(self.files[mask] for mask in masks)
            self.found.append("folders with one mask per object")
            self._remove(masks)

    def pair_label_images(self) -> None:
        """Pair each label image with an image of the same folder, or across images/ and labels/ folders."""
        labels = [file for file in self.images if _mask_folder(file) is not None or _LABEL_STEM.fullmatch(file.stem)]
        self._remove(labels)
        named: dict[tuple[PurePosixPath, str], list[PurePosixPath]] = defaultdict(list)
        for image in self.images:
            named[_lower(image.parent), image.stem].append(image)
        for label in sorted(labels, key=lambda label: (_rank(label), label)):
            partners = [image for place in _candidates(label) for image in named.get(place, [])]
            if not partners:
                self.problems.append((printable(label), "label: named like a label image, but its image is missing"))
            elif partners[0] in self.mask_of or partners[0] in self.objects_of:
                reason = f"label: not used; {printable(partners[0])} has another label image"
                self.problems.append((printable(label), reason))
            else:
                self.mask_of[partners[0]] = self.files[label]
                self.found.append(_pair_name(partners[0], label))

    def source_images(self) -> list[SourceImage]:
        """Return the images with the label images found for them."""
        return [
            SourceImage(
                self.files[relative],
                relative,
                mask_path=self.mask_of.get(relative),
                object_masks=self.objects_of.get(relative, ()),
            )
            for relative in self.images
        ]

    def _remove(self, labels: list[PurePosixPath]) -> None:
        taken = set(labels)
        self.images = [image for image in self.images if image not in taken]


def _lower(folder: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(str(folder).lower())


def _is_image_folder(folder: PurePosixPath) -> bool:
    return folder.name.lower() in IMAGE_FOLDERS


def _mask_folder(path: PurePosixPath) -> int | None:
    """Position of the last folder whose name is in `MASK_FOLDERS`."""
    parts = [part.lower() for part in path.parent.parts]
    return max((i for i, part in enumerate(parts) if part in MASK_FOLDERS), default=None)


def _base(path: PurePosixPath) -> str:
    match = _LABEL_STEM.fullmatch(path.stem)
    return match["base"] if match else path.stem


def _rank(label: PurePosixPath) -> int:
    """Priority among several label images of one image: masks before mask, labels, label."""
    match = _LABEL_STEM.fullmatch(label.stem)
    return ["masks", "mask", "labels", "label"].index(match["ending"].lower()) if match else -1


def _candidates(label: PurePosixPath) -> list[tuple[PurePosixPath, str]]:
    """(folder in lower case, stem) of images that a label image may belong to, the most likely first."""
    folder, at = _lower(label.parent), _mask_folder(label)
    folders = []
    if at is not None:
        before, after = folder.parts[:at], folder.parts[at + 1 :]
        folders = [PurePosixPath(*before, name, *after) for name in IMAGE_FOLDERS] + [PurePosixPath(*before, *after)]
    folders.append(folder)
    stems = dict.fromkeys([*(_base(label) + ending for ending in _IMAGE_ENDINGS), label.stem])
    return [(place, stem) for place in folders for stem in stems]


def _pair_name(image: PurePosixPath, label: PurePosixPath) -> str:
    """Describe the naming rule of a pair: `NAME_img.png with NAME_masks.png`."""
    match = _LABEL_STEM.fullmatch(label.stem)
    end = label.stem[len(match["base"]) :] if match else ""
    if image.parent != label.parent:
        at = _mask_folder(label)
        name = label.parent.parts[at] if at is not None else label.parent.name
        return f"images with {name}/NAME{end}{label.suffix}"
    base = match["base"] if match else label.stem
    return f"NAME{image.stem[len(base) :]}{image.suffix} with NAME{end}{label.suffix}"
