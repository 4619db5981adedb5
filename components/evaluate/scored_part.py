"""What one kind of label contributes to the results of `evaluate`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shared.metrics.classification import Classification
from shared.reporting.page import Page


@dataclass(frozen=True)
class ScoredPart:
    """The scores by masks, by boxes or by classes."""

    title: str
    """Heading on a page with several parts."""
    metrics: dict[str, float]
    """Metrics over all images, which `scores.json` holds under `overall`."""
    columns: list[str]
    """Columns of `scores.csv`."""
    rows: list[dict[str, Any]]
    """Lines of `scores.csv`, one for each image; each has `image` and `source`."""
    classification: Classification
    """Confusion matrix, and a ROC curve where there is one."""
    show: Callable[[Page], None]
    """Adds the part to a page."""
    counts: dict[str, int] = field(default_factory=dict)
    """Further entries of `scores.json`."""
    learned_from: bool = False
    """Whether the model learned from the labels of these images."""
    remark: str = ""
    """Which images these are."""
