"""Compute the fingerprint of a source, so that caches notice changed files under an unchanged name."""

import contextlib
import hashlib
import os
from pathlib import Path

from shared.readers.listing import list_files
from shared.system.errors import UserError


def fingerprint(source: str | Path) -> str:
    """Hash the listing of a source: names, sizes and modification times (etags in a store). It opens no file.

    source: folder, file or `s3://bucket/prefix`. New or changed files change the fingerprint.
    """
    rows = _store_rows(str(source)) if "://" in str(source) else _local_rows(Path(source))
    digest = hashlib.sha256()
    for name, size, version in rows:
        digest.update(name + f"\0{size}\0{version}\n".encode())
    return digest.hexdigest()[:32]


def _store_rows(uri: str) -> list[tuple[bytes, int, str]]:
    """List (name, size, etag) of the objects below a prefix."""
    from shared import store

    rows = [(name.encode(), size, etag) for name, size, etag in store.listing(uri)]
    if not rows:
        raise UserError(f"{uri}: no object there; check the name, or upload the images first")
    return rows


def _local_rows(source: Path) -> list[tuple[bytes, int, str]]:
    """List (relative path, size, modification time) of files; a broken link, which ingest rejects, is left out."""
    rows = []
    for relative, path in list_files(source).files.items():
        with contextlib.suppress(OSError):
            status = path.stat()
            rows.append((os.fsencode(str(relative)), status.st_size, str(status.st_mtime_ns)))
    return rows
