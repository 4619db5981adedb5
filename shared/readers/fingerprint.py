"""Compute the fingerprint of a source, so that caches notice changed files under an unchanged name."""

import hashlib
import os
from pathlib import Path

from shared.readers.listing import list_files
from shared.system.errors import UserError


def fingerprint(source: str | Path) -> str:
    """Hash the listing of a source: names, sizes and modification times (etags in a store). It opens no file.

    source: folder, file or `s3://bucket/prefix`. New or changed files change the fingerprint.
    """
    digest, source = hashlib.sha256(), str(source)
    if "://" in source:
        from shared import store

        rows = [(name.encode(), str(size), etag) for name, size, etag in store.listing(source)]
        if not rows:
            raise UserError(f"{source}: no object there; check the name, or upload the images first")
    else:
        files, _ = list_files(Path(source))
        rows = []
        for relative, path in files.items():
            try:
                status = path.stat()
            except OSError:
                continue  # a broken link; ingest lists it as a reject
            rows.append((os.fsencode(str(relative)), str(status.st_size), str(status.st_mtime_ns)))
    for name, size, mark in rows:
        digest.update(name + f"\0{size}\0{mark}\n".encode())
    return digest.hexdigest()[:32]
