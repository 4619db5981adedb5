"""From plain files to an ImageSet and a LabelSet: every image decoded, checked, and written in order of its key.

Memory is bounded by `shared.system.parallel.IN_FLIGHT` and one image for every thread, whatever the number of images.
Decoding, checking, encoding and hashing run side by side in threads (the codecs let go of Python's lock); writing
keeps the order.
"""

import csv
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shared.artifacts import keys
from shared.artifacts.image_set import ImageEntry, ImageWriter
from shared.artifacts.label_set import LabelEntry, LabelWriter
from shared.artifacts.manifest import is_artifact, read_manifest
from shared.readers import coco
from shared.readers.annotations import Annotation
from shared.readers.decode.image_file import Frame, Limits, open_image
from shared.readers.image_job import Job, OpenFile, decode_job
from shared.readers.layouts import Item, Layout, recognise
from shared.system.devices import threads
from shared.system.errors import ImageError, UserError
from shared.system.log import log
from shared.system.parallel import in_order
from shared.system.progress import track

REJECTS = "rejects.csv"
COPIES = 4
"""Times its decoded size that an image takes while it is checked, converted and encoded."""
SHOWN = 5


@dataclass
class Summary:
    """What was ingested."""

    layout: str
    images: list[ImageEntry] = field(default_factory=list)
    labels: list[LabelEntry] = field(default_factory=list)
    """Label images; boxes and classes are not among them."""
    labelled: set[str] = field(default_factory=set)
    """Keys of images about which anything is known."""
    rejects: list[tuple[str, str]] = field(default_factory=list)
    """(source, reason), of images, labels and single annotations; reasons of the latter two begin with `label:`."""
    rejected_images: int = 0
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """(source, remark) on what was taken all the same."""
    ignored: dict[str, int] = field(default_factory=dict)
    """Ending of files that are neither images nor labels -> how many."""
    instances: int = 0
    """Objects drawn in label images."""
    boxes: int = 0
    """Objects in annotations.coco.json."""
    classes: dict[str, int] = field(default_factory=dict)
    """Class -> number of images."""


def ingest_plain(location: str, folder: Path) -> Summary:
    """Ingest a folder, file or `s3://` prefix of plain images into the payload of an ImageSet, labels left aside."""
    with local_source(location) as source:
        return ingest(source, folder)


@contextmanager
def local_source(location: str) -> Iterator[Path]:
    """The source as a local path; what lies in a store is fetched into a folder that goes when the block ends."""
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
    no_labels: Path | None = None,
    *,
    min_size: int = 8,
    max_megapixels: float = 400.0,
    max_rejects: float = 0.5,
) -> Summary:
    """Write the payload of an ImageSet to `images`, of a LabelSet to `labels`, of an empty one to `no_labels`.

    Raises UserError where no image is left, or where more than the share `max_rejects` was rejected.
    """
    layout = recognise(source)
    if source.is_dir() and is_artifact(source):
        kind = read_manifest(source).type
        raise UserError(f"{source}: a finished {kind}, no folder of plain images; hand it to the next stage as it is")
    log.info("layout: %s", layout.text)
    summary = Summary(layout.text, rejects=list(layout.problems), ignored=layout.ignored)
    summary.rejects += layout.unreadable
    summary.rejected_images = len(layout.unreadable)
    limits = Limits(min_size, max_megapixels)
    with tempfile.TemporaryDirectory() as nowhere, ThreadPoolExecutor(threads()) as pool:
        jobs = _plan(pool, layout, limits, summary)
        labels = labels or Path(nowhere)
        with ImageWriter(images) as writer, LabelWriter(labels, "truth", {"layout": layout.text}) as drawn:
            _write(pool, jobs, limits, writer, drawn, summary)
    _finish(source, images, max_rejects, summary)
    if no_labels is not None:
        with LabelWriter(no_labels, "truth", {}):
            pass
    return summary


def _plan(pool: ThreadPoolExecutor, layout: Layout, limits: Limits, summary: Summary) -> list[Job]:
    """Read every header; one job for every frame, in order of keys."""

    def probe(item: Item) -> list[Frame] | str:
        try:
            with open_image(item.path, limits) as file:
                return file.frames
        except ImageError as error:
            return str(error)

    jobs: list[Job] = []
    for item, frames in zip(layout.items, in_order(pool, probe, layout.items), strict=True):
        if isinstance(frames, str):
            summary.rejects.append((keys.printable(item.relative), frames))
            summary.rejected_images += 1
            continue
        for index, frame in enumerate(frames):
            key = keys.frame_key(item.key, frame.number) if len(frames) > 1 else item.key
            jobs.append(Job(key, item, index, len(frames), frame))
    taken: dict[str, int] = {}
    for job in jobs:
        taken[job.key] = taken.get(job.key, 0) + 1
    jobs = [
        job
        if taken[job.key] == 1
        else Job(keys.with_hash(job.item.relative, job.frame.number), job.item, job.index, job.frames, job.frame)
        for job in jobs
    ]
    return sorted(jobs, key=lambda job: job.key)


def _write(
    pool: ThreadPoolExecutor,
    jobs: list[Job],
    limits: Limits,
    writer: ImageWriter,
    drawn: LabelWriter,
    summary: Summary,
) -> None:
    """Do the jobs side by side and write what comes out in order."""
    opened = OpenFile(limits)
    outlined: list[tuple[str, tuple[int, int], list[Annotation]]] = []
    results = in_order(pool, lambda job: decode_job(job, opened, limits), jobs, lambda job: COPIES * job.frame.nbytes)
    try:
        for job, done in zip(jobs, track(results, "images", len(jobs)), strict=True):
            summary.rejects += done.problems
            summary.remarks += [(job.source, remark) for remark in done.remarks]
            if done.packed is None:
                summary.rejects.append((job.source, done.reason))
                summary.rejected_images += 1
                continue
            item, scale = job.item, job.frame.um_per_px
            writer.add_packed(
                job.key, done.packed, source=job.source, um_per_px=scale, group=job.group, split=item.split
            )
            if done.mask is not None:
                drawn.add(job.key, done.mask, done.kind, done.conf)
                summary.instances += int(done.mask.max(initial=0)) if done.kind == "instances" else 0
            if done.found is not None:
                outlined.append((job.key, done.packed.shape[:2], done.found))
            if item.label is not None:
                drawn.classes[job.key] = item.label
                summary.classes[item.label] = summary.classes.get(item.label, 0) + 1
    finally:
        opened.close()
    if outlined:
        drawn.coco = coco.coco_dict(outlined)
    summary.images, summary.labels = writer.entries, drawn.entries
    summary.boxes = sum(len(found) for _, _, found in outlined)
    summary.labelled = {*drawn.classes, *(e.key for e in drawn.entries), *(key for key, _, _ in outlined)}


def _finish(source: Path, images: Path, max_rejects: float, summary: Summary) -> None:
    """Write the list of rejects, and fail where too little is left."""
    summary.rejects.sort()
    with (images / REJECTS).open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["source", "reason"])
        table.writerows(summary.rejects)
    for name, reason in summary.rejects[: 4 * SHOWN]:
        log.warning("rejected %s: %s", name, reason)
    if len(summary.rejects) > 4 * SHOWN:
        log.warning("and %d more; all are in %s and on the page", len(summary.rejects) - 4 * SHOWN, REJECTS)
    reasons = [(name, reason) for name, reason in summary.rejects if not reason.startswith("label: ")]
    listed = "".join(f"\n  {name}: {reason}" for name, reason in reasons[:SHOWN])
    more = f"\n  and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    total = len(summary.images) + summary.rejected_images
    if total == 0:
        others = ", ".join(f"{number} .{ending}" for ending, number in summary.ignored.items()) or "nothing"
        raise UserError(f"{source}: no image files (found: {others}); TIFF, PNG, JPEG and BMP are read")
    if not summary.images:
        raise UserError(f"{source}: not one of {total} images can be used:{listed}{more}")
    if summary.rejected_images > max_rejects * total:
        raise UserError(
            f"{source}: {summary.rejected_images} of {total} images were rejected, a larger share than "
            f"max_rejects = {max_rejects:g} allows; mend or remove them, or raise it:{listed}{more}"
        )


# --- one image ----------------------------------------------------------------------------------------------------
