"""Write `cells.csv`: a row for each cell with its area, position, shape, intensity and score."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shared.artifacts.image_set import ImageEntry
from shared.exporters.exporter import PredictedImage
from shared.imaging.region_properties import region_properties

_POSITION_AND_SHAPE = ["centroid_y", "centroid_x", "y0", "x0", "y1", "x1", "eccentricity"]
_IN_UM = ["area_um2", "centroid_y_um", "centroid_x_um"]


class CellsCsv:
    """Columns of micrometres are written if any image has a pixel size; they are empty for images without one."""

    def __init__(self, folder: Path, entries: Sequence[ImageEntry]) -> None:
        channels = max((entry.channels for entry in entries), default=0)
        in_um = _IN_UM if any(entry.um_per_px for entry in entries) else []
        means = [f"mean_{channel}" for channel in range(channels)]
        self.columns = ["image", "source", "label", "area_px", *_POSITION_AND_SHAPE, *means, *in_um, "score"]
        self._stream = (folder / "cells.csv").open("w", encoding="utf-8", newline="")
        self._writer = csv.DictWriter(self._stream, self.columns, restval="", lineterminator="\n")
        self._writer.writeheader()

    def prepare(self, item: PredictedImage) -> tuple[ImageEntry, dict[str, np.ndarray]]:
        """Measure the cells of one image."""
        entry, columns = item.entry, region_properties(item.labels, item.image)
        if entry.um_per_px:
            columns["area_um2"] = columns["area_px"] * entry.um_per_px**2
            columns["centroid_y_um"] = columns["centroid_y"] * entry.um_per_px
            columns["centroid_x_um"] = columns["centroid_x"] * entry.um_per_px
        return entry, columns | {"score": item.scores}

    def append(self, prepared: tuple[ImageEntry, dict[str, np.ndarray]]) -> None:
        """Write the rows of one image."""
        entry, columns = prepared
        for number in range(len(columns["area_px"])):
            row = {name: _text(values[number]) for name, values in columns.items()}
            self._writer.writerow({"image": entry.key, "source": entry.source, "label": number + 1, **row})

    def __enter__(self) -> "CellsCsv":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


def _text(value: Any) -> str:
    """Format a number: integers in full, others with seven significant digits."""
    return str(int(value)) if isinstance(value, np.integer) else f"{value:.7g}"
