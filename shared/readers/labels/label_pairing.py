"""Tell label images from images by their names, and find the image of each."""

from collections import defaultdict
from pathlib import Path, PurePosixPath

from shared.artifacts.keys import printable
from shared.readers.file_names import stem_of
from shared.readers.labels.label_names import (
    IMAGE_FOLDERS,
    Place,
    Relation,
    base_of,
    is_label,
    is_other,
    lower,
    object_base,
    pair_name,
    places_of,
    rank,
    relations_of,
)
from shared.readers.source_image import SourceImage


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
        self.remarks: list[tuple[str, str]] = []
        """(file, remark) on what a name was taken for."""
        self.without_image: list[PurePosixPath] = []
        """Files named like label images whose image is missing."""

    def pair_object_masks(self) -> None:
        """Pair ID/images/NAME.png with ID/masks/*.png, one mask per object, as in the Data Science Bowl 2018.

        Where one of the masks has the name of the image, it is the image's label image. So is an only mask, where no
        folder of the source holds several; a remark says so.
        """
        single = {}
        for image, masks in self._mask_folders():
            if any(base_of(mask) in (stem_of(image), base_of(image)) for mask in masks):
                continue
            if len(masks) == 1:
                single[image] = masks[0]
                continue
            self._take_objects(image, masks)
        for image, mask in single.items():
            if self.objects_of:
                self._take_objects(image, [mask])
                continue
            self._remove([mask])
            self._pair(mask, [image])
            text = f"the label image of {printable(image)}: each is the only one in its folder, but their names differ"
            self.remarks.append((printable(mask), text))

    def _mask_folders(self) -> list[tuple[PurePosixPath, list[PurePosixPath]]]:
        """The only image of a folder `images`, and the files of a folder `masks` beside it."""
        folders: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
        for relative in self.images:
            folders[relative.parent].append(relative)
        found = []
        for folder, masks in folders.items():
            beside = [other for other in folders if other.parent == folder.parent and _is_image_folder(other)]
            images = [image for other in beside for image in folders[other]]
            if folder.name.lower() in ("masks", "mask") and len(images) == 1:
                found.append((images[0], masks))
        return found

    def _take_objects(
        self, image: PurePosixPath, masks: list[PurePosixPath], how: str = "folders with one mask per object"
    ) -> None:
        self.objects_of[image] = tuple(self.files[mask] for mask in masks)
        self.found.append(how)
        self._remove(masks)

    def _pass_on(self, file: PurePosixPath, image: PurePosixPath) -> None:
        """Give an image the label image that was made of its label image: `a_bw_labels` of `a_bw` of `a`."""
        labels = self.mask_of.pop(file)
        if image in self.mask_of or image in self.objects_of:
            self.found.pop()  # one image fewer is labelled
        else:
            self.mask_of[image] = labels
        self.problems.append((printable(file), f"label: not used; {printable(image)} has another label image"))

    def pair_label_images(self) -> None:
        """Pair each label image with an image of the same folder, or across images/ and labels/ folders."""
        labels = [file for file in self.images if is_label(file)]
        self._remove(labels)
        named = self._by_place(self.images)
        self._pair_objects(labels, named)
        labels = [label for label in labels if not self._is_left_out(label, named)]
        for label in sorted(labels, key=lambda label: (rank(label), label)):
            places = [*places_of(label), *(place for relation in relations_of(label) for place in relation.places)]
            if partners := next((named[place] for place in places if place in named), []):
                self._pair(label, partners)
            else:
                self.without_image.append(label)
                self.problems.append((printable(label), "label: named like a label image, but its image is missing"))

    def _pair_objects(self, labels: list[PurePosixPath], named: dict[Place, list[PurePosixPath]]) -> None:
        """Pair NAME with NAME_mask_1, NAME_mask_2, ..., one mask per object; NAME_mask may be one of them."""
        parts: dict[PurePosixPath, list[tuple[int, PurePosixPath]]] = defaultdict(list)
        for file in [*labels, *self.images]:
            base, number = object_base(file) or (file if is_label(file) else None, -1)
            places = places_of(base) if base else []
            if image := next((named[place][0] for place in places if place in named), None):
                parts[image].append((number, file))
        for image, numbered in parts.items():
            has_numbers = any(number >= 0 for number, _ in numbered)
            if image not in self.objects_of and len(numbered) > 1 and has_numbers:
                masks = [file for _, file in sorted(numbered)]
                self._take_objects(image, masks, "numbered masks, one per object")
                labels[:] = [label for label in labels if label not in masks]

    def _is_left_out(self, label: PurePosixPath, named: dict[Place, list[PurePosixPath]]) -> bool:
        """Leave out what is in a folder of label images, but belongs to an image as something else."""
        partner = next((named[place][0] for place in places_of(label) if place in named), None)
        if partner is None or not is_other(stem_of(label)):
            return False
        self.remarks.append((printable(label), f"left out: no label image, it belongs to {printable(partner)}"))
        return True

    def pair_by_relation(self) -> None:
        """Pair files that are label images only because the image that their name points to is there.

        Those that belong to an image and are no label image are left out. What points to no image stays an image.
        """
        named = self._by_place(self.images)
        related = {file: relations for file in self.images if (relations := list(relations_of(file)))}
        found = {file: self._partners(file, relations, named) for file, relations in related.items()}
        taken = {file for file, partners in found.items() if partners}
        pairs = [(file, *found[file][0]) for file in taken if found[file] and found[file][0][1][0] not in taken]
        self._remove([file for file, *_ in pairs])
        for file, relation, partners in sorted(pairs, key=lambda pair: (pair[1].rank, pair[0])):
            if relation.is_label and file in self.mask_of:
                self._pass_on(file, partners[0])
            elif relation.is_label:
                self._pair(file, partners)
            else:
                self.remarks.append((printable(file), f"left out: no image, it belongs to {printable(partners[0])}"))
        known = {file for file, *_ in pairs} | {partner for *_, partners in pairs for partner in partners}
        if alone := sorted(set(related) - known):
            more = f", like {len(alone) - 1} more files" if len(alone) > 1 else ""
            remark = f"read as an image{more}, although named like a label image: no image has the rest of its name"
            self.remarks.append((printable(alone[0]), remark))

    @staticmethod
    def _partners(
        file: PurePosixPath, relations: list[Relation], named: dict[Place, list[PurePosixPath]]
    ) -> list[tuple[Relation, list[PurePosixPath]]]:
        """The relations of a file with the images that they lead to, without those that lead nowhere."""
        leads = [
            (relation, [one for one in named[place] if one != file])
            for relation in relations
            for place in relation.places
            if place in named
        ]
        return [(relation, images) for relation, images in leads if images]

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

    def _pair(self, label: PurePosixPath, partners: list[PurePosixPath]) -> None:
        """Give a label image to one of several images of its name: of its folder, with its suffix, else the first."""
        image = max(partners, key=lambda one: (one.parent == label.parent, one.suffix.lower() == label.suffix.lower()))
        if image in self.mask_of or image in self.objects_of:
            self.problems.append((printable(label), f"label: not used; {printable(image)} has another label image"))
            return
        self.mask_of[image] = self.files[label]
        self.found.append(pair_name(image, label))
        if others := [printable(one) for one in partners if one != image]:
            remark = f"the label image of {printable(image)}, not of {', '.join(others)}, which has the same name"
            self.remarks.append((printable(label), remark))

    def _by_place(self, images: list[PurePosixPath]) -> dict[Place, list[PurePosixPath]]:
        named: dict[Place, list[PurePosixPath]] = defaultdict(list)
        for image in images:
            named[lower(image.parent), stem_of(image)].append(image)
        return dict(named)

    def _remove(self, labels: list[PurePosixPath]) -> None:
        taken = set(labels)
        self.images = [image for image in self.images if image not in taken]


def _is_image_folder(folder: PurePosixPath) -> bool:
    return folder.name.lower() in IMAGE_FOLDERS
