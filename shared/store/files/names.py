"""Check whether names of objects can be names of files: S3 allows any text, and tells `a//b` from `a/b`."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from shared.system.errors import UserError

MAX_PART_BYTES = 255
"""Bytes of a name between two slashes that a file system holds."""
MAX_NAME_BYTES = 1024
"""Bytes of a whole name: as many as S3 allows."""
_CONTROL = re.compile("[\x00-\x1f\x7f]")


def first_problem(names: Iterable[str]) -> str:
    """Say what keeps these names from being files of one folder; empty where nothing does."""
    checked = set(names)
    for name in sorted(checked):
        if problem := _problem(name):
            return f"{name[:100]!r} {problem}"
    parents = {str(parent) for name in checked for parent in PurePosixPath(name).parents}
    clash = sorted(checked & parents)
    return f"{clash[0][:100]!r} is both an object and a folder of others" if clash else ""


def _problem(name: str) -> str:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "has a part between slashes that is empty, . or .."
    if _CONTROL.search(name):
        return "contains control characters"
    try:
        lengths = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "is not Unicode"
    if max(lengths) > MAX_PART_BYTES or sum(lengths) + len(parts) - 1 > MAX_NAME_BYTES:
        return f"is too long: a file system holds {MAX_PART_BYTES} bytes between slashes, {MAX_NAME_BYTES} in all"
    return ""


def refuse_one_file(paths: dict[str, Path]) -> None:
    """Raise UserError where two names lead to one file, as where a file system takes `A` and `a` for the same.

    paths: name -> existing file.
    """
    seen: dict[tuple[int, int], str] = {}
    for name, path in paths.items():
        status = path.stat()
        other = seen.setdefault((status.st_dev, status.st_ino), name)
        if other != name and status.st_ino:
            raise UserError(
                f"{other!r} and {name!r} are one file on this file system; rename one of the objects, or use a folder "
                "on a file system that tells them apart"
            )
