"""Make the key of each image, its name throughout a run, from its path; and choose among keys."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Protocol, TypeVar

from pydantic import StringConstraints

from shared.system.names import visible

Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")]
"""Key of an image as it is read from an index: it becomes the name of files, so it can be no path."""
MAX_KEY_LENGTH = 72
"""Characters of a key, without the frame number."""
_REPLACED = re.compile(r"[^A-Za-z0-9_-]+")
T = TypeVar("T")


class Keyed(Protocol):
    """Anything with a path and a key."""

    relative: PurePosixPath
    key: str


def printable(path: PurePosixPath | str) -> str:
    r"""Return a path as text that UTF-8 can encode: other bytes appear as \xff, and a newline as \n."""
    return visible(os.fsencode(str(path)).decode("utf-8", "backslashreplace"))


def key_of(relative: PurePosixPath) -> str:
    """Derive a key of letters, digits, `_` and `-`, at most `MAX_KEY_LENGTH` long, from the relative path alone.

    `plate/a1.tif` becomes `plate__a1`. A hash of the path is appended where two paths could give the same key: other
    characters, double underscores, long paths.

    >>> key_of(PurePosixPath("well 3/a.tif"))
    'well_3__a-5d66f398'
    """
    name = re.sub(r"\.ome$", "", relative.stem, flags=re.IGNORECASE)
    parts = [*relative.parts[:-1], name]
    joined = "__".join(parts)
    ambiguous = len(parts) > 1 and any(part[0] in "_-" or part.endswith("_") or "__" in part for part in parts)
    if len(parts) == 1:
        ambiguous = "__" in name or name.startswith("-")
    if not ambiguous and len(joined) <= MAX_KEY_LENGTH and not _REPLACED.search(joined):
        return joined
    return hashed_key(relative)


def hashed_key(relative: PurePosixPath, frame: int | None = None) -> str:
    """Join a readable beginning and 8 hex digits of the hash of the whole path, and of the frame number if given."""
    path = os.fsencode(str(relative)) + (b"" if frame is None else f"#{frame}".encode())
    digest = hashlib.sha256(path).hexdigest()[:8]
    plain = _REPLACED.sub("_", printable(relative.with_suffix("")).replace("/", "__"))
    return f"{plain[: MAX_KEY_LENGTH - 9].strip('_-') or 'image'}-{digest}"


def assign_keys(images: Iterable[Keyed]) -> None:
    """Set the key of every image. Files that would share a key (a.tif, a.png) get a hash of their path each."""
    images = list(images)
    wanted = [key_of(image.relative) for image in images]
    shared = {key for key, count in Counter(wanted).items() if count > 1}
    for image, key in zip(images, wanted, strict=True):
        image.key = hashed_key(image.relative) if key in shared else key


def frame_key(key: str, frame: int) -> str:
    """Return the key of one of several images in a file."""
    return f"{key}_f{frame:04d}"


def evenly_spaced(items: list[T], max_count: int) -> list[T]:
    """Choose at most `max_count` (1 or more) evenly spaced items, the first among them, and the last from 2 on.

    >>> evenly_spaced(["a", "b", "c", "d", "e"], 3)
    ['a', 'c', 'e']
    """
    if len(items) <= max_count:
        return items
    step = (len(items) - 1) / max(1, max_count - 1)
    return [items[round(i * step)] for i in range(max_count)]
