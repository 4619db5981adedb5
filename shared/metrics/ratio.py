"""Divide without ever giving NaN."""


def ratio(part: float, whole: float, extra: float = 0.0) -> float:
    """part / whole. Where the whole is 0: 1 if `extra`, the count of superfluous predictions, is 0 as well, else 0."""
    return float(part / whole) if whole > 0 else float(extra == 0)
