"""Cut a set of images with boxes into a set of crops with classes: one image for each box."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.artifacts.annotation import Annotation
from shared.artifacts.image_set import ImageEntry, ImageReader, ImageWriter
from shared.artifacts.label_set import LabelReader, LabelWriter
from shared.system.progress import track


@dataclass(frozen=True)
class Crop:
    """One box to cut out."""

    key: str
    entry: ImageEntry
    """The image that it is cut from."""
    number: int
    """Of the box among those of the image, from 1."""
    item: Annotation

    @property
    def source(self) -> str:
        """Source of the image, with the number of the box."""
        return f"{self.entry.source}#box{self.number}"

    def rows_and_columns(self, margin: float) -> tuple[slice, slice]:
        """Pixels of the box and of a margin on each side, a share of its height and width, within the image."""
        x, y, width, height = self.item.bbox
        spans = []
        for start, length, limit in ((y, height, self.entry.height), (x, width, self.entry.width)):
            first, last = start - margin * length, start + (1 + margin) * length
            spans.append(slice(max(0, int(np.floor(first))), min(limit, int(np.ceil(last)))))
        return spans[0], spans[1]


@dataclass
class CropSummary:
    """What was cut."""

    images: list[ImageEntry] = field(default_factory=list)
    rejects: list[tuple[str, str]] = field(default_factory=list)
    """(source of the crop, reason) of the boxes that were not cut."""
    class_counts: Counter[str] = field(default_factory=Counter)
    """Class -> number of crops."""


def crop_boxes(
    images: ImageReader, labels: LabelReader, out: tuple[Path, Path], margin: float, min_size: int
) -> CropSummary:
    """Write the payloads of an ImageSet of crops and of a LabelSet of their classes.

    Crops keep their size, bit depth, channels and pixel size, and the split and group of their image; where all images
    are of one group, the group is the image, so that its crops stay together.
    out: folders of the images and of the labels; margin: share of the box's sides; min_size: px, smaller crops are
    rejected.
    """
    summary, one_group = CropSummary(), len({entry.group for entry in images.entries.values()}) == 1
    crops = sorted(_crops(images, labels), key=lambda crop: crop.key)
    key, image = "", np.empty((0, 0, 1))
    with ImageWriter(out[0]) as writer, LabelWriter(out[1], "truth", dict(labels.info.notes)) as classes:
        for crop in track(crops, "crops", len(crops)):
            if reason := _problem(crop, margin, min_size):
                summary.rejects.append((crop.source, f"label: {reason}"))
                continue
            if key != crop.entry.key:
                key, image = crop.entry.key, images.read(crop.entry.key)
            pixels = np.ascontiguousarray(image[crop.rows_and_columns(margin)])
            group = key if one_group else crop.entry.group
            about = {"source": crop.source, "group": group, "split": crop.entry.split}
            summary.images.append(writer.add(crop.key, pixels, um_per_px=crop.entry.um_per_px, **about))
            classes.classify(crop.key, crop.item.category)
            summary.class_counts[crop.item.category] += 1
    return summary


def _crops(images: ImageReader, labels: LabelReader) -> Iterator[Crop]:
    for key, items in labels.annotations().items():
        for number, item in enumerate(items, 1):
            yield Crop(f"{key}_b{number:04d}", images.entries[key], number, item)


def _problem(crop: Crop, margin: float, min_size: int) -> str:
    """Why a box is not cut out; empty where it is."""
    if crop.item.iscrowd:
        return f"box {crop.number} ({crop.item.category}) covers several objects, so it has no crop"
    rows, columns = crop.rows_and_columns(margin)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if min(height, width) < min_size:
        return f"box {crop.number} ({crop.item.category}): a crop of {width} x {height} px, smaller than {min_size} px"
    return ""
