"""Decide by how much images of small cells are enlarged, and note it in the artifacts."""

from pathlib import Path

from components.ingest.component import Ingest
from shared.artifacts.image_set import ImageEntry, ImageReader
from shared.artifacts.label_set import LabelEntry, LabelReader
from shared.artifacts.payload import INDEX
from shared.artifacts.shards import read_jsonl, write_jsonl
from shared.proposals.measured_size import object_diameter
from shared.system.log import log

SMALL_OBJECT_PX = 17.0
"""Typical diameter below which images are enlarged (RESULTS.md, "Constants")."""
FACTORS = (1, 2, 4)
_MAX_ENLARGED_PX = 64e6
"""Pixels of the largest image after it is enlarged; also of the whole set where it is enlarged twice as much as
needed."""


def magnify(stage: Ingest, images: Path, labels: Path) -> int:
    """Enlarge the images and label images of payloads as the stage says; return the factor."""
    factor = _measured(images, labels) if stage.magnify == "auto" else int(stage.magnify)
    if factor > 1:
        _rewrite(images / INDEX, ImageEntry, factor)
        _rewrite(labels / INDEX, LabelEntry, factor)
    return factor


def _measured(images: Path, labels: Path) -> int:
    reader = ImageReader(images, sealed=False)
    if LabelReader(labels, sealed=False).annotations():
        return 1
    diameter = object_diameter(reader, reader.keys("train"), without_margin=True)
    pixels = [reader.pixel_count(key) for key in reader.entries]
    factor, largest = enlargement(diameter, sum(pixels)), max(pixels, default=0)
    if factor > 1 and largest * factor**2 > _MAX_ENLARGED_PX:
        log.warning("objects have %.0f px, but images of %.0f megapixels are not enlarged", diameter, largest / 1e6)
        return 1
    log.info("typical object diameter: %.0f px; images are enlarged by %d", diameter, factor)
    return factor


def enlargement(diameter: float, pixels: int) -> int:
    """Choose the factor by the diameter of the objects in px, and the number of pixels of the set: 1, 2 or 4.

    The smallest that gives objects `SMALL_OBJECT_PX`, and in a small set twice that: it is better, but takes longer.
    """
    if diameter <= 0:
        return 1
    needed = next((factor for factor in FACTORS if diameter * factor >= SMALL_OBJECT_PX), FACTORS[-1])
    affordable = 2 * needed in FACTORS and pixels * (2 * needed) ** 2 <= _MAX_ENLARGED_PX
    return 2 * needed if needed > 1 and affordable else needed


def _rewrite(index: Path, kind: type[ImageEntry] | type[LabelEntry], factor: int) -> None:
    """Note the factor, and the sizes after it, in an index."""
    entries = list(read_jsonl(index, kind))
    write_jsonl(index, (entry.enlarged(factor) for entry in entries))
