"""What a file of annotations says about one image: the objects that can be used, and what is lost."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.artifacts.annotation import Annotation

_SAME_BOX_PX = 1.0
"""Largest difference of the sides of two boxes of one object in two files, px."""


@dataclass
class Annotations:
    """The annotations of one image."""

    found: list[Annotation] | None = None
    """Those that can be used; None where there is no file."""
    dropped: list[str] = field(default_factory=list)
    """Reason for each that is dropped."""
    lost: int = 0
    """Objects that are dropped: an image with objects that are lost, and none that is left, is not one without any."""
    unsure: list[Annotation] = field(default_factory=list)
    """Places of lost objects, where they are known."""

    @property
    def is_known(self) -> bool:
        """Whether the file says what the image holds, be it nothing."""
        return self.found is not None and bool(self.found or not self.lost)


def single(annotations: list[Annotation]) -> tuple[list[Annotation], int]:
    """Leave out annotations that repeat others; also return their number."""
    kept = list({(one.category, one.bbox, _outline(one), one.iscrowd): one for one in annotations}.values())
    return kept, len(annotations) - len(kept)


def merged(files: Sequence[list[Annotation] | None]) -> tuple[list[Annotation], list[str]]:
    """Join the annotations of several files; also return remarks. Of the same box in two files one stays."""
    kept: list[Annotation] = []
    repeated = 0
    for found in sorted((found or [] for found in files), key=lambda found: not any(one.rle for one in found)):
        new = [one for one in found if not any(_is_same(one, other) for other in kept)]
        repeated += len(found) - len(new)
        kept += new
    return kept, [f"boxes that repeat those of another annotation file: {repeated}"] if repeated else []


def _is_same(one: Annotation, other: Annotation) -> bool:
    near = all(abs(a - b) <= _SAME_BOX_PX for a, b in zip(one.bbox, other.bbox, strict=True))
    return near and one.category == other.category


def _outline(one: Annotation) -> object:
    return one.rle["counts"] if one.rle else None
