"""Write `cells.csv`: a row for each cell with its area, position, shape, intensity and score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from shared.artifacts.image_set import ImageEntry
from shared.exporters.base_classes import CsvTable
from shared.exporters.exporter import Content, PredictedImage
from shared.imaging.region_properties import region_properties

_POSITION_AND_SHAPE = ["centroid_y", "centroid_x", "y0", "x0", "y1", "x1", "eccentricity"]
_IN_UM = ["area_um2", "centroid_y_um", "centroid_x_um"]


class CellsCsv(CsvTable):
    """Columns of micrometres are written if any image has a pixel size; they are empty for images without one."""

    needs: ClassVar[frozenset[Content]] = frozenset(["instances"])
    file = "cells.csv"

    def __init__(self, folder: Path, entries: Sequence[ImageEntry]) -> None:
        channels = max((entry.channels for entry in entries), default=0)
        in_um = _IN_UM if any(entry.um_per_px for entry in entries) else []
        means = [f"mean_{channel}" for channel in range(channels)]
        columns = ["image", "source", "label", "area_px", *_POSITION_AND_SHAPE, *means, *in_um, "score"]
        super().__init__(folder, columns)

    def prepare(self, item: PredictedImage) -> list[dict[str, Any]]:
        """Measure the cells of one image."""
        if item.instances is None:
            return []
        entry, columns = item.entry, region_properties(item.instances.labels, item.image)
        if entry.um_per_px:
            columns["area_um2"] = columns["area_px"] * entry.um_per_px**2
            columns["centroid_y_um"] = columns["centroid_y"] * entry.um_per_px
            columns["centroid_x_um"] = columns["centroid_x"] * entry.um_per_px
        columns["score"] = item.instances.scores
        common = {"image": entry.key, "source": entry.source}
        return [
            common | {"label": number + 1} | {name: _text(values[number]) for name, values in columns.items()}
            for number in range(len(columns["area_px"]))
        ]


def _text(value: Any) -> str:
    """Format a number: integers in full, others with seven significant digits."""
    return str(int(value)) if isinstance(value, np.integer) else f"{value:.7g}"
