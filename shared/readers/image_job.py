"""Decode one image, check it, and read the labels that belong to it."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.artifacts import keys
from shared.artifacts.image_set import Packed, pack
from shared.readers import coco, label_images, voc
from shared.readers.annotations import Annotation
from shared.readers.decode.image_file import Frame, ImageFile, Limits, open_image, storable
from shared.readers.layouts import Item
from shared.system.errors import ImageError


@dataclass(frozen=True)
class Job:
    """One image to decode."""

    key: str
    item: Item
    index: int
    """Which of the file's frames."""
    frames: int
    frame: Frame

    @property
    def source(self) -> str:
        """Relative path, with `#frame` behind it for one of several."""
        name = keys.printable(self.item.relative)
        return f"{name}#{self.frame.number}" if self.frames > 1 else name

    @property
    def group(self) -> str:
        """The file where it is a stack (a movie), else its folder (plate, well)."""
        return keys.printable(self.item.relative) if self.frames > 1 else self.item.group


@dataclass
class Done:
    """What became of a job."""

    packed: Packed | None = None
    reason: str = ""
    mask: np.ndarray | None = None
    kind: label_images.Kind = "instances"
    conf: np.ndarray | None = None
    found: list[Annotation] | None = None
    """Boxes and outlines, None where there is no such file."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class OpenFile(threading.local):
    """The file a thread read last: the frames of a stack come one after another."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.path: Path | None = None
        self.file: ImageFile | None = None

    def get(self, path: Path) -> ImageFile:
        """The file, opened where it is another one than before."""
        if self.file is None or self.path != path:
            self.close()
            self.file, self.path = open_image(path, self.limits), path
        return self.file

    def close(self) -> None:
        """Let go of this thread's file."""
        if self.file is not None:
            self.file.close()
        self.file = None


def decode_job(job: Job, opened: OpenFile, limits: Limits) -> Done:
    done = Done()
    try:
        file = opened.get(job.item.path)
        if len(file.frames) != job.frames:
            raise ImageError("the file changed while it was read")
        pixels, done.remarks = file.read(job.index)
        if job.frames == 1:
            opened.close()
        image = storable(pixels)
        done.packed = pack(image)
    except ImageError as error:
        done.reason = str(error)
        return done
    _read_labels(job, image.shape[:2], limits, done)
    return done


def _read_labels(job: Job, size: tuple[int, int], limits: Limits, done: Done) -> None:
    """Read what lies beside the image; a label that does not fit is listed, the image stays."""
    item = job.item
    try:
        if item.objects:
            done.mask, dropped = label_images.paint_objects(item.objects, size, limits)
            done.problems += [(job.source, f"label: {reason}") for reason in dropped]
        elif item.mask is not None:
            done.mask, done.kind, remarks = label_images.read_mask(item.mask, job.index, job.frames, size, limits)
            done.remarks += remarks
        if (item.voc or item.coco) and job.frames > 1:
            raise ImageError("annotations of a file with several frames are not understood")
        if item.voc is not None:
            done.found, dropped = voc.voc_annotations(item.voc, size)
            done.problems += [(job.source, f"label: {reason}") for reason in dropped]
        if item.coco is not None:
            outlined, dropped = coco.coco_annotations(item.coco, size)
            done.found = (done.found or []) + outlined
            done.problems += [(job.source, f"label: {reason}") for reason in dropped]
            drawn = coco.rasterise(outlined, size) if done.mask is None else None
            if drawn is not None:
                done.mask, done.conf = drawn
    except (ImageError, ValueError, SyntaxError) as error:  # SyntaxError: what XML parsers raise
        name = next((f"{keys.printable(path.name)}: " for path in (item.mask, item.voc) if path), "")
        done.problems.append((job.source, f"label: {name}{error}"))
