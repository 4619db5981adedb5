"""Draw what a LabelSet holds about an image: its label image, its boxes, its class."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shared.artifacts.annotation import Annotation, ImageClass
from shared.artifacts.label_set import LabelReader
from shared.imaging.overlays import outline, outline_boxes


@dataclass(frozen=True)
class ImageLabels:
    """The labels of one image; None where the set holds none of a kind."""

    plane: np.ndarray | None = None
    """Label image (H, W)."""
    objects: list[Annotation] | None = None
    """Annotated objects."""
    image_class: ImageClass | None = None

    def drawn(self, rgb: np.ndarray, colour: tuple[int, int, int], width: int = 1) -> np.ndarray:
        """Outline objects and boxes on a copy of an image (H, W, 3) uint8."""
        drawn = rgb if self.plane is None else outline(rgb, self.plane, colour, width)
        return outline_boxes(drawn, [item.bbox for item in self.objects or ()], colour, width)

    def caption(self) -> str:
        """`12 cells, 3 boxes, positive 0.98`."""
        parts = []
        if self.plane is not None:
            parts.append(f"{len(np.unique(self.plane[self.plane > 0]))} cells")
        if self.objects is not None:
            parts.append(f"{len(self.objects)} boxes")
        if self.image_class is not None:
            parts.append(class_caption(self.image_class))
        return ", ".join(parts)

    def foreground(self, size: tuple[int, int]) -> np.ndarray | None:
        """Mask (H, W) uint8 of the objects, their boxes where there is no label image; None where neither is known."""
        if self.plane is not None or self.objects is None:
            return None if self.plane is None else (self.plane > 0).astype(np.uint8)
        mask = np.zeros(size, np.uint8)
        for item in self.objects:
            x, y, width, height = item.bbox
            mask[max(0, int(y)) : int(y + height), max(0, int(x)) : int(x + width)] = 1
        return mask


def class_caption(found: ImageClass) -> str:
    """`positive 0.98`, or the outcome before it where it is another: `abstain: positive 0.61`."""
    named = found.name if found.score is None else f"{found.name} {found.score:.2f}"
    return named if found.outcome in (None, found.name) else f"{found.outcome}: {named}"


class LabelledImages:
    """The labels of one set, image by image."""

    def __init__(self, reader: LabelReader) -> None:
        self.reader = reader
        self.objects: Mapping[str, list[Annotation]] = reader.annotations()
        self.classes: Mapping[str, ImageClass] = reader.image_classes()

    def keys(self) -> list[str]:
        """Keys of the images with labels of any kind, ascending."""
        return sorted({*self.reader.entries, *self.objects, *self.classes})

    def outlined(self) -> list[str]:
        """Keys of the images with a label image or annotated objects, ascending."""
        return sorted({*self.reader.entries, *self.objects})

    def of(self, key: str, size: tuple[int, int]) -> ImageLabels:
        """Read the labels of an image of (height, width) px; a label image of another size is left out."""
        plane = self.reader.mask(key) if key in self.reader.entries else None
        plane = plane if plane is not None and plane.shape == size else None
        return ImageLabels(plane, self.objects.get(key), self.classes.get(key))
