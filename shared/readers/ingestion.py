"""Ingest plain files into an ImageSet and a LabelSet: decode and check every image, and write in order of the keys.

`shared.system.parallel.MAX_BYTES_IN_FLIGHT` and one image per thread bound the memory, whatever the number of images.
Isolated processes (`shared.system.processes.isolation`) decode, check, encode and hash side by side, within limits; one
thread writes in order.
"""

import csv
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shared.artifacts.image_set import ImageEntry, ImageWriter
from shared.artifacts.label_set import LabelWriter
from shared.artifacts.manifest import is_artifact, read_manifest
from shared.readers.decode.limits import Limits
from shared.readers.image_job import DecodedImage, ImageJob, decode_images, plan_jobs
from shared.readers.layouts import Layout, recognise
from shared.system.errors import UserError
from shared.system.log import log
from shared.system.names import cell
from shared.system.processes.isolation import reading_threads
from shared.system.progress import track

REJECTS_FILE = "rejects.csv"
"""File of the ImageSet with every reject and its reason."""
MAX_LOGGED_REJECTS = 20
MAX_REJECTS_IN_ERROR = 5
_DEFAULT_LIMITS = Limits()


@dataclass
class IngestSummary:
    """Counts and lists of what was ingested."""

    layout: str
    """The recognised layout, for people."""
    images: list[ImageEntry] = field(default_factory=list)
    labelled_images: int = 0
    """Images with a label image, annotations or a class."""
    rejects: list[tuple[str, str]] = field(default_factory=list)
    """(source, reason) of images, labels and single annotations; reasons of the latter two begin with `label:`."""
    rejected_images: int = 0
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """(source, remark) on accepted images."""
    ignored_files: dict[str, int] = field(default_factory=dict)
    """Suffix -> number of files that are neither images nor labels."""
    label_files: list[str] = field(default_factory=list)
    """Files named like label images whose image is missing."""
    instance_count: int = 0
    """Objects in label images."""
    annotation_count: int = 0
    """Objects in the COCO file of the LabelSet."""
    class_counts: Counter[str] = field(default_factory=Counter)
    """Class -> number of images."""

    @classmethod
    def of_layout(cls, layout: Layout) -> "IngestSummary":
        """Start with what could not be listed or paired."""
        summary = cls(layout.description, ignored_files=layout.ignored)
        summary.rejects = layout.problems + layout.unreadable
        summary.rejected_images = len(layout.unreadable)
        summary.remarks, summary.label_files = list(layout.remarks), layout.without_image
        return summary

    def add_rejected_images(self, rejects: list[tuple[str, str]]) -> None:
        """Count rejected images, with (source, reason) of each."""
        self.rejects += rejects
        self.rejected_images += len(rejects)


def ingest_plain(location: str, folder: Path) -> IngestSummary:
    """Ingest a folder, file or `s3://` prefix of plain images into the payload of an ImageSet, without labels."""
    with local_source(location) as source:
        return ingest(source, folder, remedy="give the images that `ingest` with a higher --max_rejects makes of them")


@contextmanager
def local_source(location: str) -> Iterator[Path]:
    """Yield the source as a local path; a prefix in a store is fetched into a folder that is removed on exit."""
    if "://" not in location:
        yield Path(location).absolute()
        return
    from shared import store

    with store.borrowed_prefix(location) as folder:
        yield folder


def ingest(
    source: Path,
    images: Path,
    labels: Path | None = None,
    *,
    limits: Limits = _DEFAULT_LIMITS,
    max_rejects: float = 0.5,
    group_pattern: re.Pattern[str] | None = None,
    remedy: str = "raise --max_rejects",
) -> IngestSummary:
    """Write the payload of an ImageSet to `images`, and of a LabelSet to `labels` if given.

    group_pattern: see `shared.readers.folder_names.group_by_name`; remedy: what else helps where too many are rejected.
    Raises UserError where no image is left, or where more than the share `max_rejects` is rejected.
    """
    layout = recognise(source, group_pattern)
    if source.is_dir() and is_artifact(source):
        kind = read_manifest(source).type
        raise UserError(f"{source}: already a finished {kind}, not plain images; pass it to the next stage as it is")
    log.info("layout: %s", layout.description)
    summary = IngestSummary.of_layout(layout)
    with tempfile.TemporaryDirectory() as unused, reading_threads() as pool:
        jobs, rejects = plan_jobs(pool, layout.images, limits)
        summary.add_rejected_images(rejects)
        notes = {"layout": layout.description}
        with ImageWriter(images) as writer, LabelWriter(labels or Path(unused), "truth", notes) as label_writer:
            output = _Output(writer, label_writer, summary)
            for job, decoded in track(decode_images(pool, jobs, limits), "images", len(jobs)):
                output.add(job, decoded)
    summary.rejects.sort()
    write_rejects(summary.rejects, images)
    check_rejects(source, summary, max_rejects, remedy)
    return summary


class _Output:
    """Write decoded images and their labels, and count them."""

    def __init__(self, images: ImageWriter, labels: LabelWriter, summary: IngestSummary) -> None:
        self._images, self._labels, self._summary = images, labels, summary

    def add(self, job: ImageJob, decoded: DecodedImage) -> None:
        """Write one image with its labels, or list it as rejected."""
        self._summary.rejects += [(job.source, f"label: {reason}") for reason in decoded.label_rejects]
        self._summary.remarks += [(job.source, remark) for remark in decoded.remarks]
        if decoded.encoded is None:
            self._summary.add_rejected_images([(job.source, decoded.reject_reason)])
            return
        entry = self._images.add(
            job.key,
            decoded.encoded,
            source=job.source,
            um_per_px=job.frame.um_per_px,
            group=job.group,
            split=job.image.split,
        )
        self._summary.images.append(entry)
        self._add_labels(entry, decoded, job.image.class_name)

    def _add_labels(self, entry: ImageEntry, decoded: DecodedImage, class_name: str | None) -> None:
        if decoded.mask is not None:
            self._labels.add(entry.key, decoded.mask, decoded.mask_kind, decoded.conf)
            if decoded.mask_kind == "instances":
                self._summary.instance_count += int(decoded.mask.max(initial=0))
        if decoded.annotations is not None:
            self._labels.annotate(entry.key, (entry.height, entry.width), decoded.annotations)
            self._summary.annotation_count += len(decoded.annotations)
        if class_name is not None:
            self._labels.classify(entry.key, class_name)
            self._summary.class_counts[class_name] += 1
        if decoded.mask is not None or decoded.annotations is not None or class_name is not None:
            self._summary.labelled_images += 1


def write_rejects(rejects: list[tuple[str, str]], folder: Path) -> None:
    """Write (source, reason) of all rejects to `rejects.csv`, and log the first ones."""
    with (folder / REJECTS_FILE).open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["source", "reason"])
        table.writerows((cell(name), cell(reason)) for name, reason in rejects)
    for name, reason in rejects[:MAX_LOGGED_REJECTS]:
        log.warning("rejected %s: %s", name, reason)
    if len(rejects) > MAX_LOGGED_REJECTS:
        log.warning("%d more rejects: see %s", len(rejects) - MAX_LOGGED_REJECTS, REJECTS_FILE)


def check_rejects(source: Path, summary: IngestSummary, max_rejects: float, remedy: str) -> None:
    """Raise UserError where no image is left, or where more than the share `max_rejects` is rejected."""
    total = len(summary.images) + summary.rejected_images
    if total == 0 and (labels := summary.label_files):
        named = f"{labels[0]} is a label image" if len(labels) == 1 else f"{len(labels)} files are label images"
        example = "" if len(labels) == 1 else f", such as {labels[0]}"
        raise UserError(f"{source}: no image: by name {named}{example}; rename, or add the images that they belong to")
    if total == 0:
        found = ", ".join(f"{number} .{suffix}" for suffix, number in summary.ignored_files.items()) or "nothing"
        raise UserError(f"{source}: no image files (found: {found}); provide TIFF, PNG, JPEG or BMP")
    if not summary.images:
        raise UserError(f"{source}: none of {total} images can be used:{_first_reasons(summary.rejects)}")
    if summary.rejected_images > max_rejects * total:
        raise UserError(
            f"{source}: {summary.rejected_images} of {total} images are rejected, a larger share than {max_rejects:g}; "
            f"correct or remove them, or {remedy}:{_first_reasons(summary.rejects)}"
        )


def _first_reasons(rejects: list[tuple[str, str]]) -> str:
    """List the first rejected images, one per line."""
    images = [(name, reason) for name, reason in rejects if not reason.startswith("label: ")]
    listed = "".join(f"\n  {name}: {reason}" for name, reason in images[:MAX_REJECTS_IN_ERROR])
    rest = len(images) - MAX_REJECTS_IN_ERROR
    return listed + (f"\n  and {rest} more" if rest > 0 else "")
