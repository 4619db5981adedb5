"""Turn plain files into an ImageSet and a LabelSet, see `shared.readers.ingestion`."""

import re

from components.ingest.component import Ingest
from components.ingest.page import make_page
from shared.artifacts.label_set import LabelWriter
from shared.readers.decode.limits import Limits
from shared.readers.fingerprint import fingerprint
from shared.readers.ingestion import IngestSummary, ingest, local_source
from shared.stage.declaration import Result
from shared.system.errors import UserError
from shared.system.log import log


def run(stage: Ingest) -> Result:
    """Decode, check and store every image of the source with its labels."""
    source_fingerprint = stage.fingerprint or fingerprint(stage.source)
    pattern = _group_pattern(stage.group_pattern) if stage.group_pattern else None
    limits = Limits(stage.min_size, stage.max_megapixels)
    with local_source(stage.source) as source:
        summary = ingest(
            source, stage.images, stage.labels, limits=limits, max_rejects=stage.max_rejects, group_pattern=pattern
        )
    with LabelWriter(stage.no_labels, "truth"):
        pass
    log.info(
        "%d images, %d with labels, %d rejects",
        len(summary.images),
        summary.labelled_images,
        len(summary.rejects),
    )
    return Result(
        metrics=_metrics(summary),
        values={"fingerprint_out": source_fingerprint},
        page=make_page(stage.source, summary, stage.images, stage.labels),
        remark=f"Layout: {summary.layout}.",
    )


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
