"""Turn plain files into an ImageSet and a LabelSet, see `shared.readers.ingestion`."""

import re
import tempfile
from pathlib import Path

from components.ingest.component import Ingest
from components.ingest.magnify import magnify
from components.ingest.object_crops import crop_boxes
from components.ingest.page import make_page
from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LabelReader, LabelWriter
from shared.readers.decode.limits import Limits
from shared.readers.fingerprint import fingerprint
from shared.readers.ingestion import IngestSummary, ingest, local_source, write_rejects
from shared.stage.declaration import Result
from shared.system.errors import UserError
from shared.system.log import log


def run(stage: Ingest) -> Result:
    """Decode, check and store every image of the source with its labels."""
    source_fingerprint = stage.fingerprint or fingerprint(stage.source)
    with local_source(stage.source) as source:
        summary = _ingest(stage, source)
    factor = magnify(stage, stage.images, stage.labels)
    with LabelWriter(stage.no_labels, "truth"):
        pass
    log.info(
        "%d images, %d with labels, %d rejects",
        len(summary.images),
        summary.labelled_images,
        len(summary.rejects),
    )
    return Result(
        metrics=_metrics(summary) | {"magnification": float(factor)},
        values={"fingerprint_out": source_fingerprint},
        page=make_page(stage.source, summary, stage.images, stage.labels),
        remark=f"Layout: {summary.layout}." + (f" Images are enlarged {factor} times." if factor > 1 else ""),
    )


def _ingest(stage: Ingest, source: Path) -> IngestSummary:
    """Write images and labels, or the crops of the boxes."""
    if stage.crops == "none":
        return _ingest_into(stage, source, stage.images, stage.labels)
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "images", Path(scratch) / "labels"
        summary = _ingest_into(stage, source, *whole)
        readers = ImageReader(whole[0], sealed=False), LabelReader(whole[1], sealed=False)
        crops = crop_boxes(*readers, (stage.images, stage.labels), stage.crop_margin, stage.min_size)
    if not crops.images:
        raise UserError(f"--crops boxes: {stage.source}: no box to cut out; give boxes, or set it to none")
    summary.layout += f"; {len(crops.images)} crops of boxes of {len(summary.images)} images"
    summary.images, summary.labelled_images = crops.images, len(crops.images)
    summary.instance_count = summary.annotation_count = 0
    summary.class_counts = crops.class_counts
    summary.rejects = sorted(summary.rejects + crops.rejects)
    write_rejects(summary.rejects, stage.images)
    return summary


def _ingest_into(stage: Ingest, source: Path, images: Path, labels: Path) -> IngestSummary:
    pattern = _group_pattern(stage.group_pattern) if stage.group_pattern else None
    limits = Limits(stage.min_size, stage.max_megapixels)
    return ingest(source, images, labels, limits=limits, max_rejects=stage.max_rejects, group_pattern=pattern)


def _group_pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"--group_pattern: {text!r} is no regular expression: {error}; correct it") from error


def _metrics(summary: IngestSummary) -> dict[str, float]:
    metrics = {
        "images": len(summary.images),
        "labelled": summary.labelled_images,
        "rejects": summary.rejected_images,
        "label_rejects": len(summary.rejects) - summary.rejected_images,
        "instances": summary.instance_count,
        "boxes": summary.annotation_count,
        "megapixels": sum(entry.height * entry.width for entry in summary.images) / 1e6,
    }
    return {name: float(value) for name, value in metrics.items()}
