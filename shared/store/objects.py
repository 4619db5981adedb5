"""Single objects in S3: look, read, write, remove, list."""

import io
from pathlib import PurePosixPath

from shared.store.s3 import GONE, client, explained, has_bucket, retried, split
from shared.system.errors import UserError

PROBE = ".writable"
"""Ending of an object that is written and removed at once, to see whether one may."""


def exists(uri: str) -> bool:
    """Whether there is an object of exactly this name."""
    bucket, key = split(uri)
    with explained(uri):
        try:
            retried(lambda: client().stat_object(bucket, key))
            return True
        except Exception as error:
            if getattr(error, "code", "") in GONE and has_bucket(bucket):
                return False
            raise


def put(uri: str, data: bytes) -> None:
    """Write one small object as a whole."""
    bucket, key = split(uri)
    with explained(uri):
        retried(lambda: client().put_object(bucket, key, io.BytesIO(data), len(data)))


def get(uri: str) -> bytes:
    """Read one small object as a whole."""
    bucket, key = split(uri)
    with explained(uri):
        return retried(lambda: _read(bucket, key))


def find(uri: str) -> bytes | None:
    """Read one small object as a whole; None where there is none."""
    bucket, key = split(uri)
    with explained(uri):
        try:
            return retried(lambda: _read(bucket, key))
        except Exception as error:
            if getattr(error, "code", "") in GONE and has_bucket(bucket):
                return None
            raise


def probe(uri: str) -> None:
    """Raise UserError where no object whose name begins with `uri` can be written and removed."""
    if not split(uri)[1]:
        raise UserError(f"{uri}: a name in the bucket is needed: {uri.rstrip('/')}/NAME")
    put(f"{uri}{PROBE}", b"")
    remove(f"{uri}{PROBE}")


def remove(uri: str) -> None:
    """Remove one object; that there is none is fine."""
    bucket, key = split(uri)
    with explained(uri):
        retried(lambda: client().remove_object(bucket, key))


def listing(uri: str) -> list[tuple[str, int, str]]:
    """(name relative to `uri`, bytes, etag) of every object below it, sorted; of an object itself, that one.

    Equal listings mean equal contents as far as the server tells: what a fingerprint of a source is made from.
    Raises UserError where `uri` is both, or where an object's name is that of a folder of others.
    """
    bucket, key = split(uri)
    prefix = key.rstrip("/")
    below = prefix + "/" if prefix else ""
    with explained(uri):
        items = retried(lambda: list(client().list_objects(bucket, prefix=prefix, recursive=True)))
    own, found = [], []
    for item in items:
        entry = (item.object_name.removeprefix(below), item.size, item.etag.strip('"'))
        if item.object_name == key:
            own.append((PurePosixPath(prefix).name, *entry[1:]))
        elif item.object_name.startswith(below) and not item.object_name.endswith("/"):
            found.append(entry)
    if own and found:
        raise UserError(f"{uri}: an object of this name, and others below it; {uri}/ means the latter")
    names = {name for name, _, _ in found}
    parents = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if clash := sorted(names & parents):
        raise UserError(f"{uri}: {clash[0]} is an object and a folder of others as well; rename one of them")
    return sorted(found or own)


def _read(bucket: str, key: str) -> bytes:
    """All of one object."""
    response = client().get_object(bucket, key)
    try:
        return response.read()
    finally:
        response.close()
        response.release_conn()
