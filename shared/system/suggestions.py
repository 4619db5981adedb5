"""Suggest the known name that is closest to a mistyped one."""

import difflib
from collections.abc import Iterable

_MIN_SIMILARITY = 0.55
"""Similarity from which on a name is suggested: the ratio of difflib, 0 to 1."""


def closest(given: str, known: Iterable[str]) -> str | None:
    """Return the known name most like `given`, None where none is close. Dashes and underscores are equal."""
    names = {name.replace("-", "_"): name for name in known}
    close = difflib.get_close_matches(given.lstrip("-").replace("-", "_"), list(names), 1, _MIN_SIMILARITY)
    return names[close[0]] if close else None


def did_you_mean(given: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return `; did you mean NAME?` where a known name is close, else `otherwise`.

    >>> did_you_mean("prob", ["probe", "train"])
    '; did you mean probe?'
    """
    name = closest(given, known)
    return f"; did you mean {name}?" if name else otherwise


def alternatives(given: str, known: Iterable[str]) -> str:
    """Return `; did you mean NAME?` where a known name is close, else `; there are A, B, C`."""
    known = list(known)
    return did_you_mean(given, known, f"; there are {', '.join(known)}")
