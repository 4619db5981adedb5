"""Decode one image of a source, check it, and read the labels that belong to it."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from shared.artifacts.annotation import Annotation
from shared.artifacts.image_codec import EncodedImage, encode_image
from shared.artifacts.keys import frame_key, hashed_key, printable
from shared.artifacts.label_set import LabelKind
from shared.readers.decode.image_file import Frame, ImageFile, Limits, open_image
from shared.readers.decode.pixel_values import to_storable
from shared.readers.labels import label_images, outlines, voc
from shared.readers.labels.annotations import Annotations, merged
from shared.readers.reading_bounds import BYTES_PER_LABEL_PX, BYTES_PER_SECOND, header_bounds
from shared.readers.source_image import SourceImage
from shared.system.errors import ImageError
from shared.system.parallel import in_order
from shared.system.processes.isolation import Bounds, isolated

MEMORY_PER_DECODED_BYTE = 4
"""Bytes of memory per byte of decoded pixels while an image is checked, converted and encoded."""

_HEADERS_PER_CALL = 16
"""Files whose headers an isolated process reads at once."""


@dataclass(frozen=True)
class ImageJob:
    """One image to decode: one frame of a file."""

    key: str
    image: SourceImage
    index: int
    """Position of the frame in `ImageFile.frames`."""
    frame_count: int
    """Frames of the file."""
    frame: Frame

    @property
    def bounds(self) -> Bounds:
        """What reading the image and its labels may use."""
        at_header, size = header_bounds(self.image.path), self.frame
        memory = at_header.memory + 8 * size.nbytes + BYTES_PER_LABEL_PX * size.height * size.width
        return Bounds(memory, at_header.seconds + size.nbytes / BYTES_PER_SECOND)

    @property
    def source(self) -> str:
        """Relative path; `#frame` is appended for one of several."""
        name = printable(self.image.relative)
        return f"{name}#{self.frame.number}" if self.frame_count > 1 else name

    @property
    def group(self) -> str:
        """What a pattern names; else the file where it is a stack (a movie), else its folder (plate, well)."""
        is_stack = self.frame_count > 1 and not self.image.group_in_name
        return printable(self.image.relative) if is_stack else self.image.group


@dataclass
class DecodedImage:
    """Result of an `ImageJob`: an image with its labels, or the reason why it is rejected."""

    encoded: EncodedImage | None = None
    """None where the image is rejected."""
    reject_reason: str = ""
    mask: np.ndarray | None = None
    """Label image (H, W) of unsigned integers."""
    mask_kind: LabelKind = "instances"
    conf: np.ndarray | None = None
    """Confidence (H, W) uint8 of the mask."""
    annotations: list[Annotation] | None = None
    """Boxes and outlines; None where there is no annotation file."""
    label_rejects: list[str] = field(default_factory=list)
    """Reason for each label or annotation that is dropped."""
    remarks: list[str] = field(default_factory=list)


def plan_jobs(
    pool: ThreadPoolExecutor, images: list[SourceImage], limits: Limits
) -> tuple[list[ImageJob], list[tuple[str, str]]]:
    """Read all headers; return one job per frame, ascending by key, and (source, reason) of the rejects."""

    jobs: list[ImageJob] = []
    rejects: list[tuple[str, str]] = []
    batches = [images[start : start + _HEADERS_PER_CALL] for start in range(0, len(images), _HEADERS_PER_CALL)]
    found = chain.from_iterable(in_order(pool, lambda batch: _frames(batch, limits), batches))
    for image, frames in zip(images, found, strict=True):
        if isinstance(frames, str):
            rejects.append((printable(image.relative), frames))
            continue
        for index, frame in enumerate(frames):
            key = frame_key(image.key, frame.number) if len(frames) > 1 else image.key
            jobs.append(ImageJob(key, image, index, len(frames), frame))
    return sorted(_with_unique_keys(jobs), key=lambda job: job.key), rejects


def _frames(images: list[SourceImage], limits: Limits) -> list[list[Frame] | str]:
    """Frames of each image, or the reason why there are none; one by one where they cannot be read together."""
    bounds = [header_bounds(image.path) for image in images]
    together = Bounds(max(one.memory for one in bounds), max(one.seconds for one in bounds))
    try:
        return isolated(together, read_headers, [image.path for image in images], limits)
    except ImageError as error:
        return [str(error)] if len(images) == 1 else [_frames([image], limits)[0] for image in images]


def read_headers(paths: list[Path], limits: Limits) -> list[list[Frame] | str]:
    """Return the frames that the header of each file declares, or the reason why it cannot be used."""
    found: list[list[Frame] | str] = []
    for path in paths:
        try:
            with open_image(path, limits) as file:
                found.append(file.frames)
        except ImageError as error:
            found.append(str(error))
    return found


def _with_unique_keys(jobs: list[ImageJob]) -> list[ImageJob]:
    """Hash the keys that two frames share: `a_f0001` of frame 1 of `a.tif`, and of a file `a_f0001.tif`."""
    count = Counter(job.key for job in jobs)
    return [
        replace(job, key=hashed_key(job.image.relative, job.frame.number)) if count[job.key] > 1 else job
        for job in jobs
    ]


def decode_images(
    pool: ThreadPoolExecutor, jobs: list[ImageJob], limits: Limits
) -> Iterator[tuple[ImageJob, DecodedImage]]:
    """Decode in isolated processes, with bounded memory; yield in the order of the jobs."""
    decoded = in_order(
        pool,
        lambda job: _decode(job, limits),
        jobs,
        lambda job: MEMORY_PER_DECODED_BYTE * job.frame.nbytes,
    )
    yield from zip(jobs, decoded, strict=True)


def _decode(job: ImageJob, limits: Limits) -> DecodedImage:
    """Decode in an isolated process; where its labels may have ended that, without them."""
    try:
        return isolated(job.bounds, decode_job, job, limits)
    except ImageError as error:
        reason = str(error)
    if not job.image.has_labels:
        return DecodedImage(reject_reason=reason)
    try:
        decoded = isolated(job.bounds, decode_job, replace(job, image=job.image.without_labels()), limits)
    except ImageError as error:
        return DecodedImage(reject_reason=str(error))
    decoded.label_rejects.append(reason)
    return decoded


class _OpenFile:
    """The file that a process read last: the frames of a stack follow one another."""

    def __init__(self) -> None:
        self._version: tuple[object, ...] = ()
        self._file: ImageFile | None = None

    def get(self, path: Path, limits: Limits) -> ImageFile:
        """Return the file; open it unless it is the one read last, and unchanged."""
        version = _version(path, limits)
        if self._file is None or self._version != version:
            self.close()
            self._file, self._version = open_image(path, limits), version
        return self._file

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file = None


def _version(path: Path, limits: Limits) -> tuple[object, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, limits


_OPENED = _OpenFile()


def decode_job(job: ImageJob, limits: Limits) -> DecodedImage:
    """Decode, check and encode one image, and read its labels."""
    decoded = DecodedImage()
    try:
        file = _OPENED.get(job.image.path, limits)
        if len(file.frames) != job.frame_count:
            raise ImageError("the file changed while it was read")
        pixels, decoded.remarks = file.read(job.index)
        image = to_storable(pixels)
        decoded.encoded = encode_image(image)
    except ImageError as error:
        decoded.reject_reason = str(error)
        return decoded
    finally:
        if job.index == job.frame_count - 1:
            _OPENED.close()
    _read_labels(job, image.shape[:2], limits, decoded)
    return decoded


def _read_labels(job: ImageJob, size: tuple[int, int], limits: Limits, decoded: DecodedImage) -> None:
    """Read the labels of an image; a label that does not fit is listed, the image stays."""
    path = job.image.mask_path
    try:
        _read_mask(job, size, limits, decoded)
        path = job.image.voc_path
        if (job.image.voc_path or job.image.coco) and job.frame_count > 1:
            raise ImageError("annotations of a file with several frames are not supported")
        _read_annotations(job.image, size, decoded)
    except Exception as error:  # parsers raise errors of many types
        reason = str(error) if isinstance(error, ImageError) else f"not readable ({type(error).__name__}: {error})"
        decoded.label_rejects.append(f"{printable(path.name)}: {reason}" if path else reason)


def _read_mask(job: ImageJob, size: tuple[int, int], limits: Limits, decoded: DecodedImage) -> None:
    image = job.image
    if image.object_masks:
        decoded.mask, dropped, remarks = label_images.merge_object_masks(image.object_masks, size, limits)
        decoded.label_rejects += dropped
        decoded.remarks += remarks
    elif image.mask_path is not None:
        found = label_images.read_label_image(
            image.mask_path, size, limits, job.index, job.frame_count, job.frame.place
        )
        decoded.mask, decoded.mask_kind, decoded.conf = found.labels, found.kind, found.conf
        decoded.remarks += found.remarks


def _read_annotations(image: SourceImage, size: tuple[int, int], decoded: DecodedImage) -> None:
    """Read boxes and outlines; outlines become the label image where the image has no other."""
    boxes = Annotations() if image.voc_path is None else voc.voc_annotations(image.voc_path, size)
    outlined = Annotations() if image.coco is None else outlines.coco_annotations(image.coco, size)
    decoded.label_rejects += boxes.dropped + outlined.dropped
    if known := [one for one in (boxes, outlined) if one.is_known]:
        decoded.annotations, repeated = merged([one.found for one in known])
        decoded.remarks += repeated
    if image.coco is not None and outlined.is_known and decoded.mask is None:
        drawing = outlines.rasterise(outlined, size, has_outlines=image.coco.has_outlines)
        decoded.mask, decoded.conf = drawing.labels, drawing.conf
        decoded.remarks += drawing.remarks
