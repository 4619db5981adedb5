"""Real boxes with classes (BCCD), and detections with typical errors."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from real_labels import real_data

from shared.artifacts.annotation import Annotation
from shared.readers.labels.voc import voc_annotations

BCCD_SIZE = (480, 640)
"""Height and width of every image, px."""
BCCD_CLASSES = ["Platelets", "RBC", "WBC"]


def bccd_boxes(split: str, limit: int | None = None) -> dict[str, list[Annotation]]:
    """True boxes of the first images of `train` or `val`; skips where the data is absent."""
    folder = real_data() / "bccd" / split
    if not folder.is_dir():
        pytest.skip(f"{folder}: no real images; set CYTOLOOM_DATA to the folder of them")
    return {path.stem: voc_annotations(path, BCCD_SIZE).found for path in sorted(folder.glob("*.xml"))[:limit]}


def detections_like(
    truth: Mapping[str, Sequence[Annotation]], classes: Sequence[str] = BCCD_CLASSES, seed: int = 0, extra: int = 3
) -> dict[str, list[Annotation]]:
    """Detections as a fair detector makes them: boxes moved, missed, doubled, of a wrong class, and where nothing is.

    Scores are rounded to 0.01, so that some are equal.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[Annotation]] = {}
    for key, items in truth.items():
        found[key] = []
        for item in items:
            for _ in range(int(rng.choice([0, 1, 2], p=[0.15, 0.75, 0.1]))):
                x, y, width, height = item.bbox
                box = np.array([x, y, x + width, y + height]) + rng.normal(0, 0.07, 4) * [width, height, width, height]
                category = item.category if rng.random() < 0.9 else str(rng.choice(classes))
                found[key].append(_box(box, category, rng.beta(4, 2)))
        for _ in range(int(rng.integers(0, extra + 1))):
            x, y, width, height = rng.uniform([0, 0, 15, 15], [560, 400, 80, 80])
            found[key].append(_box(np.array([x, y, x + width, y + height]), str(rng.choice(classes)), rng.beta(2, 4)))
    return found


def _box(corners: np.ndarray, category: str, score: float) -> Annotation:
    x0, y0, x1, y1 = (float(value) for value in corners.clip(0, [640, 480, 640, 480]))
    width, height = max(x1 - x0, 1.0), max(y1 - y0, 1.0)
    return Annotation(category, (x0, y0, width, height), width * height, score=round(float(score), 2))
