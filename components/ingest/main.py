"""`ingest`: plain files -> ImageSet and LabelSet. The work is done in `shared.readers.ingestion`."""

from components.ingest.component import Ingest
from components.ingest.page import make_page
from shared.readers.fingerprint import fingerprint
from shared.readers.ingestion import ingest, local_source
from shared.stage.declaration import Result
from shared.system.log import log


def run(stage: Ingest) -> Result:
    """Decode, check and store every image of the source, and the labels beside them."""
    mark = stage.fingerprint or fingerprint(stage.source)
    with local_source(stage.source) as source:
        summary = ingest(
            source,
            stage.images,
            stage.labels,
            stage.no_labels,
            min_size=stage.min_size,
            max_megapixels=stage.max_megapixels,
            max_rejects=stage.max_rejects,
        )
    log.info("%d images, %d with labels, %d rejects", len(summary.images), len(summary.labelled), len(summary.rejects))
    metrics = {
        "images": len(summary.images),
        "labelled": len(summary.labelled),
        "rejects": summary.rejected_images,
        "label_rejects": len(summary.rejects) - summary.rejected_images,
        "instances": summary.instances,
        "boxes": summary.boxes,
        "megapixels": sum(entry.height * entry.width for entry in summary.images) / 1e6,
    }
    page = make_page(stage.source, summary, stage.images, stage.labels)
    return Result(
        metrics={name: float(value) for name, value in metrics.items()},
        values={"fingerprint_out": mark},
        page=page,
    )
