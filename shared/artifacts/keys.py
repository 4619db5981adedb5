"""Keys: the name of an image throughout a run, made from its path."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Protocol

LONGEST = 72
"""Characters of a key, without the number of a frame."""
_CHANGED = re.compile(r"[^A-Za-z0-9_-]+")


class Keyed(Protocol):
    """Anything with a path and a key."""

    relative: PurePosixPath
    key: str


def printable(path: PurePosixPath | str) -> str:
    r"""A path as text that UTF-8 can hold: bytes that are not UTF-8 appear as \xff."""
    return os.fsencode(str(path)).decode("utf-8", "backslashreplace")


def key_of(relative: PurePosixPath) -> str:
    """Key made from a path and nothing else: letters, digits, `_`, `-`, up to `LONGEST`.

    `plate/a1.tif` is `plate__a1`. Where that could not be told from another path (other characters, double
    underscores, too long), a hash of the path follows.

    >>> key_of(PurePosixPath("well 3/a.tif"))
    'well_3__a-5d66f398'
    """
    name = re.sub(r"\.ome$", "", relative.stem, flags=re.IGNORECASE)
    parts = [*relative.parts[:-1], name]
    joined = "__".join(parts)
    ambiguous = len(parts) > 1 and any(part[0] in "_-" or part.endswith("_") or "__" in part for part in parts)
    if len(parts) == 1:
        ambiguous = "__" in name or name.startswith("-")
    if not ambiguous and len(joined) <= LONGEST and not _CHANGED.search(joined):
        return joined
    return with_hash(relative)


def with_hash(relative: PurePosixPath, number: int | None = None) -> str:
    """A readable beginning and 8 hex digits of a hash of the whole path, and of a frame's number."""
    path = os.fsencode(str(relative)) + (b"" if number is None else f"#{number}".encode())
    digest = hashlib.sha256(path).hexdigest()[:8]
    plain = _CHANGED.sub("_", printable(relative.with_suffix("")).replace("/", "__"))
    return f"{plain[: LONGEST - 9].strip('_-') or 'image'}-{digest}"


def assign(items: Iterable[Keyed]) -> None:
    """Give every item its key. Files that would share one (a.tif, a.png) get the hash as well."""
    items = list(items)
    wanted = [key_of(item.relative) for item in items]
    shared = {key for key, number in Counter(wanted).items() if number > 1}
    for item, key in zip(items, wanted, strict=True):
        item.key = with_hash(item.relative) if key in shared else key


def frame_key(key: str, number: int) -> str:
    """Key of one of several images in a file."""
    return f"{key}_f{number:04d}"


def evenly_spaced(keys: list[str], most: int) -> list[str]:
    """At most so many keys (1 or more), evenly spread, the first and the last among them.

    >>> evenly_spaced(["a", "b", "c", "d", "e"], 3)
    ['a', 'c', 'e']
    """
    if len(keys) <= most:
        return keys
    step = (len(keys) - 1) / max(1, most - 1)
    return [keys[round(i * step)] for i in range(most)]
