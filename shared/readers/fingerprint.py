"""Fingerprint of a source: what makes Kubeflow and caches see that files behind one name have changed."""

import hashlib
import os
from pathlib import Path

from shared.readers.listing import list_files
from shared.system.errors import UserError


def fingerprint(source: str | Path) -> str:
    """Hash of a listing: names, sizes and times of change (etags in a store). New or changed files, new fingerprint.

    source: folder, file or `s3://bucket/prefix`. Nothing is read but the listing.
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
                continue  # a broken link; ingest lists it
            rows.append((os.fsencode(str(relative)), str(status.st_size), str(status.st_mtime_ns)))
    for name, size, mark in rows:
        digest.update(name + f"\0{size}\0{mark}\n".encode())
    return digest.hexdigest()[:32]
