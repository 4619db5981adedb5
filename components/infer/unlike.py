"""Find the images whose instances are unlike those of the other images, or do not look like cells at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.assessment.estimated_dice import MIN_TRUSTED
from shared.assessment.mask_statistics import straight_share
from shared.exporters.exporter import Instances
from shared.instances.label_image import typical_area

UNLIKE_FILE = "unlike.csv"
_MIN_IMAGES = 5
"""Images from which on there is a typical one."""
_MIN_CELLS, _FEW_SHARE = 5.0, 0.1
"""Cells of the typical image from which on an image with a smaller share of them, for its size, has few."""
_LARGE_RATIO, _LARGE_QUANTILE, _OF_QUANTILE = 4.0, 0.9, 1.5
"""Cells are large if their area exceeds this many times the median over the images, and this many times this quantile:
a set may hold images of two magnifications."""
_MAX_COVERAGE = 0.9
"""Share of the image that the cells cover."""
_MAX_STRAIGHT = 0.05
"""Share of the borders that are long straight lines along rows and columns."""


@dataclass(frozen=True)
class InstanceStatistics:
    """What is seen without labels of the instances of an image."""

    source: str
    cells: int
    density: float
    """Cells per px."""
    typical_area: float
    """px²; 0 without cells."""
    coverage: float
    """Share of the image that is foreground."""
    estimated_dice: float | None
    """None without cells."""
    straight: float
    """`shared.assessment.mask_statistics.straight_share`"""

    @classmethod
    def of(cls, source: str, found: Instances) -> "InstanceStatistics":
        """Measure the instances of an image."""
        areas = np.bincount(found.labels.ravel())[1:]
        typical = float(typical_area(areas)) if len(areas) else 0.0
        coverage = float(np.count_nonzero(found.labels)) / found.labels.size
        straight = straight_share(found.labels) if len(areas) else 0.0
        density = len(areas) / found.labels.size
        return cls(source, len(areas), density, typical, coverage, found.estimated_dice, straight)


def unlike(images: Sequence[InstanceStatistics]) -> list[tuple[str, str]]:
    """Return (source, reasons) of the images that a person should look at, those of the lowest estimated Dice first."""
    typical = _typical(images) if len(images) >= _MIN_IMAGES else None
    found = [(image, reasons) for image in images if (reasons := _reasons(image, typical))]
    found.sort(key=lambda one: (one[0].estimated_dice or 0.0, one[0].source))
    return [(image.source, "; ".join(reasons)) for image, reasons in found]


def mean_estimate(images: Sequence[InstanceStatistics]) -> float | None:
    """Mean estimated Dice of the images with cells; None where none has any."""
    known = [image.estimated_dice for image in images if image.estimated_dice is not None]
    return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class _Typical:
    """Medians over the images of a set."""

    density: float
    area: float
    large_area: float
    """Above it, cells are larger than in the other images."""


def _typical(images: Sequence[InstanceStatistics]) -> _Typical:
    areas = [image.typical_area for image in images if image.cells]
    density = float(np.median([image.density for image in images]))
    if not areas:
        return _Typical(density, 0.0, np.inf)
    median, high = (float(np.quantile(areas, share, method="lower")) for share in (0.5, _LARGE_QUANTILE))
    return _Typical(density, median, max(_LARGE_RATIO * median, _OF_QUANTILE * high))


def _reasons(image: InstanceStatistics, typical: _Typical | None) -> list[str]:
    reasons = []
    if image.estimated_dice is not None and image.estimated_dice < MIN_TRUSTED:
        reasons.append(f"the masks do not look like cells (estimated Dice {image.estimated_dice:.2f})")
    if image.coverage > _MAX_COVERAGE:
        reasons.append(f"cells cover {100 * image.coverage:.0f} % of the image")
    if image.straight > _MAX_STRAIGHT:
        reasons.append(f"{100 * image.straight:.0f} % of the borders are straight lines along rows or columns")
    if typical is not None:
        expected = typical.density * image.cells / image.density if image.cells else np.inf
        if image.typical_area > typical.large_area:
            reasons.append(f"cells are {image.typical_area / typical.area:.0f} times as large as in the typical image")
        if not image.cells and typical.density > 0:
            reasons.append("no cells")
        elif expected >= _MIN_CELLS and image.density < _FEW_SHARE * typical.density:
            reasons.append(f"{image.cells} cells, where the typical image has {expected:.0f} on the same area")
    return reasons
