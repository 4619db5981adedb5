"""Write names and texts from elsewhere so that they cannot do more than be read: in terminals, logs and tables."""

import re
from collections.abc import Mapping
from typing import Any

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""Control characters, line separators, marks that change the direction of text, characters without width, and halves of
characters, which no file can hold."""
_FORMULA = ("=", "+", "-", "@")
"""First characters by which a spreadsheet takes text for a formula."""
_QUOTE = "'"


def visible(text: str) -> str:
    r"""Escape what would not be seen, or would change how the rest is seen: a newline becomes `\n`.

    >>> visible("a\nb\u202ec")
    'a\\nb\\u202ec'
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def visible_lines(text: str) -> str:
    """Escape as `visible`, but keep the line breaks and tabs of a message."""
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


def cell(value: Any) -> Any:
    """Write text into a cell of a table, so that a spreadsheet takes it for text: `=1+1` becomes `'=1+1`.

    Numbers, also as text, stay as they are.
    """
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"{_QUOTE}{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Write each value of a row of a table as `cell` does."""
    return {name: cell(value) for name, value in row.items()}


def from_cell(text: str) -> str:
    """Undo the quote that `cell` puts before a formula."""
    return text[1:] if text.startswith(_QUOTE) and text[1:].startswith(_FORMULA) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
