"""Whether the contents of a source may have changed, told without reading them."""

import hashlib
import json
import os
from pathlib import Path

from shared.errors import UserError


def fingerprint(source: str | Path) -> str:
    """sha256 over names, sizes and times (of an `s3://` source: etags) of all files below `source`, or of that file.

    The place itself does not count: a folder that was moved, times kept, has the same fingerprint.
    Raises UserError where there is nothing.
    """
    rows = _remote(str(source)) if "://" in str(source) else _local(Path(source))
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()[:32]


def _remote(uri: str) -> list[list]:
    from shared import store

    return [list(row) for row in store.listing(uri)]


def _local(path: Path) -> list[list]:
    if path.is_file():
        return [[path.name, path.stat().st_size, path.stat().st_mtime_ns]]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    rows = []
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder) / name
            try:
                stat = file.stat()
                rows.append([file.relative_to(path).as_posix(), stat.st_size, stat.st_mtime_ns])
            except OSError:  # a dangling link: its name is all there is
                rows.append([file.relative_to(path).as_posix(), -1, 0])
    return rows
