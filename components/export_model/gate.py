"""Decide whether an exported file is as good as the weights."""

from components.export_model.comparison import Comparison
from components.export_model.component import ExportModel

_NAMES = {"dice": "Dice", "f1": "F1 of its objects", "accuracy": "accuracy", "ece": "ECE", "ap": "AP", "ap50": "AP50"}


def rejection_reason(stage: ExportModel, precision: str, compared: Comparison) -> str:
    """Say by which limit of the stage a file is worse than the weights; empty if by none."""
    difference = compared.max_difference
    if difference == float("inf"):
        return "its output is not finite, or is for another input"
    if precision == "float32" and difference > stage.max_difference:
        return f"its output differs by up to {difference:.3g} (--max_difference {stage.max_difference:g})"
    for name, value in compared.metrics.items():
        named = _NAMES.get(name, name)
        if compared.against == "weights" and not value >= stage.min_agreement:
            return f"{named} relative to the weights is {value:.4f} (--min_agreement {stage.min_agreement:g})"
        if compared.against == "truth" and not compared.loss_points()[name] <= stage.tolerance:
            reference = compared.reference[name]
            return f"{named} is {value:.4f}, that of the weights {reference:.4f} (--tolerance {stage.tolerance:g})"
    return ""


def summary(compared: Comparison) -> str:
    """Say in a few words how a file compares with the weights, for people."""
    parts = [f"{_NAMES.get(name, name)} {value:.3f}" for name, value in compared.metrics.items()]
    if compared.against == "truth":
        parts = [
            f"{part}, weights {compared.reference[name]:.3f}"
            for part, name in zip(parts, compared.metrics, strict=True)
        ]
    return "; ".join([*parts, f"largest difference {compared.max_difference:.2g}"])
