"""Write `summary.csv`: a row for each image with its outcome and the number of objects found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from shared.artifacts.image_set import ImageEntry
from shared.exporters.base_classes import CsvTable
from shared.exporters.exporter import Content, PredictedImage

_COLUMNS = ["image", "source", "outcome", "class", "cells", "median_area_px", "estimated_dice", "boxes"]


class SummaryCsv(CsvTable):
    """`cells` and `boxes` are empty for an image that no segmentor or detector saw, unlike 0."""

    needs: ClassVar[frozenset[Content]] = frozenset(["class", "boxes", "instances"])
    file = "summary.csv"

    def __init__(self, folder: Path, entries: Sequence[ImageEntry]) -> None:
        super().__init__(folder, _COLUMNS)

    def prepare(self, item: PredictedImage) -> list[dict[str, Any]]:
        """Count the objects of one image."""
        row: dict[str, Any] = {"image": item.entry.key, "source": item.entry.source}
        if item.image_class is not None:
            row |= {"outcome": item.image_class.outcome or "", "class": item.image_class.name}
        if item.instances is not None:
            areas = np.bincount(item.instances.labels.ravel())[1:]
            row |= {"cells": len(areas), "median_area_px": f"{np.median(areas):g}" if len(areas) else ""}
            if (estimate := item.instances.estimated_dice) is not None:
                row["estimated_dice"] = f"{estimate:.2f}"
        if item.boxes is not None:
            row["boxes"] = len(item.boxes)
        return [row]
