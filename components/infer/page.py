"""Write the page of `infer`."""

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.reporting.page import Page

PANELS = 8
"""Images that are shown."""
_ROWS = 40
"""Images that the table lists."""
_AREA_BINS = 24
"""Bins of the histogram of areas."""


def make_page(images: ImageReader, areas: dict[str, np.ndarray], panels: list[tuple[np.ndarray, str]]) -> Page:
    """Show the number and the areas of the cells, and pictures; areas: key -> areas of its cells in px²."""
    page = Page("infer")
    every = np.concatenate([np.zeros(0, np.int64), *areas.values()])
    median = np.median(every) if len(every) else 0
    page.text(f"{len(every)} cells in {len(areas)} images. Median area {median:g} px².")
    page.images(panels)
    if len(every):
        limits = np.geomspace(every.min(), every.max() + 1, _AREA_BINS + 1)
        points = zip(np.log10(limits[1:] * limits[:-1]) / 2, np.histogram(every, limits)[0], strict=True)
        page.plot("Areas", {"cells": list(points)}, x="log10 of the area in px²", y="cells")
    page.heading("Images")
    rows = [
        [images.entries[key].source, len(own), float(np.median(own)) if len(own) else 0.0]
        for key, own in list(areas.items())[:_ROWS]
    ]
    page.table(["image", "cells", "median area, px²"], rows)
    if len(areas) > len(rows):
        page.text(f"{len(areas) - len(rows)} more images are not listed.")
    return page
