"""Write `detections.csv`: a row for each box with its class, score and corners."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from shared.artifacts.image_set import ImageEntry
from shared.exporters.base_classes import CsvTable
from shared.exporters.exporter import Content, PredictedImage

_COLUMNS = ["image", "source", "class", "score", "x0", "y0", "x1", "y1", "area_px"]


class DetectionsCsv(CsvTable):
    """Corners are in px from the upper left corner of the image. `area_um2` is there if any image has a pixel size."""

    needs: ClassVar[frozenset[Content]] = frozenset(["boxes"])
    file = "detections.csv"

    def __init__(self, folder: Path, entries: Sequence[ImageEntry]) -> None:
        super().__init__(folder, [*_COLUMNS, *(["area_um2"] if any(entry.um_per_px for entry in entries) else [])])

    def prepare(self, item: PredictedImage) -> list[dict[str, Any]]:
        """Return the rows of one image."""
        entry, rows = item.entry, []
        for box in item.boxes or ():
            x, y, width, height = box.bbox
            row = {"image": entry.key, "source": entry.source, "class": box.category, "score": f"{box.score:.4f}"}
            corners = zip(("x0", "y0", "x1", "y1"), (x, y, x + width, y + height), strict=True)
            row |= {name: f"{value:.2f}" for name, value in corners} | {"area_px": f"{width * height:.7g}"}
            if entry.um_per_px:
                row["area_um2"] = f"{width * height * entry.um_per_px**2:.7g}"
            rows.append(row)
        return rows
