"""Write the page of `infer`: what a person should look at first, then what was found."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from components.infer.totals import LISTED, ImageRow, Totals
from shared.exporters.exporter import PredictedImage
from shared.exporters.overlay_png import overlay
from shared.reporting.page import Page

if TYPE_CHECKING:
    from components.infer.models import Models

PANELS = 8
"""Pictures of each outcome."""
_PANEL_SIDE = 640
"""px on the longer side of a picture."""
_AREA_BINS = 24
"""Bins of the histogram of areas."""
_TITLES = {
    "abstain": "Abstained: please look at these",
    "positive": "Positive",
    "negative": "Negative",
    "predicted": "Images",
}
"""Outcome -> heading, in the order of the page."""


@dataclass
class Panel:
    """A picture of an image with what was found."""

    outcome: str
    picture: np.ndarray
    """RGB (h, w, 3) uint8"""
    caption: str


def panel_of(item: PredictedImage) -> Panel:
    """Draw an image with its instances and boxes."""
    labels = item.instances.labels if item.instances is not None else None
    picture = overlay(item.image, labels, item.boxes or (), _PANEL_SIDE)
    outcome = (item.image_class and item.image_class.outcome) or "predicted"
    parts = [] if item.image_class is None else [f"{item.image_class.name} {item.image_class.score or 0:.2f}"]
    parts += [] if item.image_class is None or outcome != "abstain" else [item.image_class.reason]
    parts += [] if item.boxes is None else [f"{len(item.boxes)} boxes"]
    parts += [] if item.instances is None else [f"{len(item.instances.scores)} cells"]
    return Panel(outcome, picture, f"{item.entry.source}: {', '.join(parts)}")


def make_page(
    totals: Totals,
    panels: list[Panel],
    failures: list[tuple[str, str]],
    to_check: list[tuple[str, str]],
    models: "Models",
    remark: str,
) -> Page:
    """Show counts, images to check, those of each outcome with pictures, failures, and the sizes of the cells.

    failures, to_check: source and reason of each.
    """
    page = Page("infer")
    page.text(_summary(totals, models))
    if remark:
        page.text(remark)
    if "class" in models.contents:
        page.table(
            ["outcome", "images"], [[name, totals.outcomes[name]] for name in ("positive", "negative", "abstain")]
        )
    _add_reasons(page, "Unlike the others: look at these first", to_check)
    for outcome, title in _TITLES.items():
        if totals.outcomes[outcome]:
            page.heading(f"{title} ({totals.outcomes[outcome]})")
            page.images([(panel.picture, panel.caption) for panel in panels if panel.outcome == outcome])
            _add_rows(page, totals.rows[outcome], totals.outcomes[outcome])
    _add_reasons(page, "Not predicted", sorted(failures))
    _add_counts(page, totals)
    page.heading("Models")
    page.table(["model", "run by"], [[kind, runtime] for kind, runtime in models.runtimes.items()])
    return page


def _summary(totals: Totals, models: "Models") -> str:
    found = []
    if "boxes" in models.contents:
        found.append(f"{totals.boxes.total()} boxes in {totals.searched_for_boxes} images")
    if "instances" in models.contents:
        found.append(f"{totals.cells} cells in {totals.segmented} images, median area {totals.median_area():g} px²")
    return f"{totals.images} images. " + (f"Found: {'; '.join(found)}." if found else "")


def _add_rows(page: Page, rows: list[ImageRow], count: int) -> None:
    """List the first images of an outcome, with the columns that any of them has."""
    columns: dict[str, list[Any]] = {
        "class": [row.class_name for row in rows],
        "probability": [row.score for row in rows],
        "reason": [row.reason for row in rows],
        "boxes": [row.boxes for row in rows],
        "cells": [row.cells for row in rows],
        "median area, px²": [row.median_area_px if row.cells is not None else None for row in rows],
    }
    known = {name: values for name, values in columns.items() if any(value not in (None, "") for value in values)}
    table = [
        [row.source, *("" if values[i] is None else values[i] for values in known.values())]
        for i, row in enumerate(rows)
    ]
    page.table(["image", *known], table)
    _say_rest(page, count - len(rows))


def _add_reasons(page: Page, title: str, found: list[tuple[str, str]]) -> None:
    """List the first images with their reasons, if there are any."""
    if found:
        page.heading(f"{title} ({len(found)})")
        page.table(["image", "reason"], [list(one) for one in found[:LISTED]])
        _say_rest(page, len(found) - LISTED)


def _say_rest(page: Page, count: int) -> None:
    if count > 0:
        page.text(f"{count} more images are not listed.")


def _add_counts(page: Page, totals: Totals) -> None:
    if totals.boxes:
        page.heading("Boxes")
        page.table(["class", "boxes"], [list(row) for row in totals.boxes.most_common()])
    if totals.cells:
        areas = np.array(sorted(totals.areas))
        limits = np.geomspace(areas[0], areas[-1] + 1, _AREA_BINS + 1)
        counts = np.histogram(areas, limits, weights=[totals.areas[int(area)] for area in areas])[0]
        points = zip(np.log10(limits[1:] * limits[:-1]) / 2, counts, strict=True)
        page.plot("Areas", {"cells": list(points)}, x="log10 of the area in px²", y="cells")
