"""A ratio that is never NaN."""


def ratio(part: float, whole: float, extra: float = 0.0) -> float:
    """part / whole; where the whole is 0: 1 when nothing superfluous (`extra`) was found, else 0."""
    return float(part / whole) if whole > 0 else float(extra == 0)
