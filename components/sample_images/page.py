"""Build the page of `sample_images`: how much of the set is learned from, and thumbnails of it."""

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.imaging.overlays import to_rgb8
from shared.reporting.page import Page

_THUMBNAILS, _SIDE = 12, 512


def make_page(reader: ImageReader, learned: list[str], train: list[str], scored: list[str]) -> Page:
    """Report counts, and some of the images; learned, train, scored: keys."""
    page = Page("sample_images")
    part, whole = (sum(map(reader.pixel_count, keys)) / 1e6 for keys in (learned, train))
    page.text(
        f"The EM loop learns from {len(learned)} of {len(train)} images of the split train: "
        f"{part:.1f} of {whole:.1f} megapixels. Predictions cover every image of the set."
    )
    page.text(
        f"Each round is scored on {len(scored)} labelled images." if scored else "No image has labels to score on."
    )
    page.heading("Images that are learned from")
    shown = evenly_spaced(learned, _THUMBNAILS)
    page.images([(to_rgb8(_small(reader, key)), reader.entries[key].source) for key in shown], width=260)
    return page


def _small(reader: ImageReader, key: str) -> np.ndarray:
    image = reader.read(key)
    step = -(-max(image.shape[:2]) // _SIDE)
    return image[::step, ::step]
