"""An image file of a source, and the labels that belong to it by their names."""

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from shared.readers.labels.coco import CocoImage


@dataclass
class SourceImage:
    """One image file of a source, and the files with its labels."""

    path: Path
    relative: PurePosixPath
    """Path relative to the source."""
    key: str = ""
    split: str = "train"
    group: str = ""
    """Its folder (plate, well), without the folders that only name a split, a class or 'images'; or from its name."""
    group_in_name: bool = False
    """Whether `group` is a part of the path that a pattern names."""
    class_name: str | None = None
    """Class, from its folder or from a file that lists it."""
    mask_path: Path | None = None
    """Label image of the same name."""
    object_masks: tuple[Path, ...] = ()
    """One mask per object."""
    voc_path: Path | None = None
    """Pascal VOC XML."""
    coco: CocoImage | None = None
    """Its annotations in a COCO file."""

    @property
    def has_labels(self) -> bool:
        """Whether files with labels belong to it."""
        return bool(self.mask_path or self.object_masks or self.voc_path or self.coco)

    def without_labels(self) -> "SourceImage":
        """Return the image alone."""
        return replace(self, mask_path=None, object_masks=(), voc_path=None, coco=None)
