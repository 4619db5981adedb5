"""Count what was found in all images, in memory that does not grow with their number."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from shared.exporters.exporter import PredictedImage

LISTED = 40
"""Images of each outcome that the page lists."""
_NO_OUTCOME = "predicted"
"""Outcome of the images of a run without a classifier."""


@dataclass
class ImageRow:
    """What the page's tables say of an image."""

    source: str
    class_name: str = ""
    score: float | None = None
    reason: str = ""
    cells: int | None = None
    """None where no segmentor was applied."""
    median_area_px: float = 0.0
    boxes: int | None = None
    """None where no detector was applied."""


@dataclass
class Totals:
    """Counts over all images, and rows for the first ones."""

    images: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    """Class -> number of images that are not abstained from."""
    boxes: Counter[str] = field(default_factory=Counter)
    """Class -> number of boxes."""
    full_tiles: int = 0
    """Tiles in which the detector may have missed objects, because it used all its queries."""
    areas: Counter[int] = field(default_factory=Counter)
    """Area in px² -> number of cells."""
    segmented: int = 0
    searched_for_boxes: int = 0
    rows: dict[str, list[ImageRow]] = field(default_factory=dict)
    """Outcome -> the first images."""

    def add(self, item: PredictedImage) -> str:
        """Count an image; returns its outcome."""
        row, outcome = ImageRow(item.entry.source), _NO_OUTCOME
        self.images += 1
        if (known := item.image_class) is not None:
            outcome = known.outcome or _NO_OUTCOME
            row.class_name, row.score, row.reason = known.name, known.score, known.reason
            self.classes.update([known.name] if outcome != "abstain" else [])
        if item.boxes is not None:
            self.searched_for_boxes += 1
            row.boxes = len(item.boxes)
            self.boxes.update(box.category for box in item.boxes)
        if item.instances is not None:
            self.segmented += 1
            areas = np.bincount(item.instances.labels.ravel())[1:]
            row.cells, row.median_area_px = len(areas), float(np.median(areas)) if len(areas) else 0.0
            self.areas.update(areas.tolist())
        self.outcomes[outcome] += 1
        if len(listed := self.rows.setdefault(outcome, [])) < LISTED:
            listed.append(row)
        return outcome

    @property
    def cells(self) -> int:
        """Cells of all images."""
        return self.areas.total()

    @property
    def answered(self) -> int:
        """Images that are positive or negative."""
        return self.outcomes["positive"] + self.outcomes["negative"]

    def median_area(self) -> float:
        """Return the median area of all cells, px²; 0 without any."""
        values = np.array(sorted(self.areas), np.float64)
        if not len(values):
            return 0.0
        ends = np.cumsum([self.areas[int(value)] for value in values])
        low, high = (int(np.searchsorted(ends, rank, "right")) for rank in ((ends[-1] - 1) // 2, ends[-1] // 2))
        return float((values[low] + values[high]) / 2)

    def metrics(self, contents: Sequence[str]) -> dict[str, float]:
        """Return name -> number; contents: what the models find."""
        found: dict[str, float] = {"images": self.images}
        if "class" in contents:
            found |= {name: self.outcomes[name] for name in ("positive", "negative", "abstain")}
            found["answered_share"] = self.answered / max(self.images, 1)
        if "boxes" in contents:
            found |= {
                "boxes": self.boxes.total(),
                "boxes_per_image": self.boxes.total() / max(self.searched_for_boxes, 1),
            }
        if "instances" in contents:
            found |= {"cells": self.cells, "cells_per_image": self.cells / max(self.segmented, 1)}
            found["median_area_px"] = self.median_area()
        return {name: float(value) for name, value in found.items()}
