"""Read, write, remove and list single objects in S3."""

import io
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TypeVar

from shared.store.connection import client, has_bucket
from shared.store.environment import split_uri
from shared.store.failures import NOT_FOUND_CODES, translated_errors
from shared.store.retries import with_retries
from shared.system.errors import UserError

T = TypeVar("T")

PROBE_SUFFIX = ".writable"
"""Ending of an object that is written and removed at once, to learn whether writing is allowed."""


def exists(uri: str) -> bool:
    """Say whether there is an object of exactly this name."""
    bucket, key = split_uri(uri)
    return _if_found(uri, bucket, lambda: client().stat_object(bucket, key)) is not None


def put(uri: str, data: bytes) -> None:
    """Write one small object as a whole."""
    bucket, key = split_uri(uri)
    with translated_errors(uri):
        with_retries(lambda: client().put_object(bucket, key, io.BytesIO(data), len(data)))


def get(uri: str) -> bytes:
    """Read one small object as a whole."""
    bucket, key = split_uri(uri)
    with translated_errors(uri):
        return with_retries(lambda: _read(bucket, key))


def find(uri: str) -> bytes | None:
    """Read one small object as a whole; None where it does not exist."""
    bucket, key = split_uri(uri)
    return _if_found(uri, bucket, lambda: _read(bucket, key))


def probe(uri: str) -> None:
    """Raise UserError where no object whose name begins with `uri` can be written and removed."""
    if not split_uri(uri)[1]:
        raise UserError(f"{uri}: only a bucket; give a name in it: {uri.rstrip('/')}/NAME")
    put(f"{uri}{PROBE_SUFFIX}", b"")
    remove(f"{uri}{PROBE_SUFFIX}")


def remove(uri: str) -> None:
    """Remove one object, if it exists."""
    bucket, key = split_uri(uri)
    with translated_errors(uri):
        with_retries(lambda: client().remove_object(bucket, key))


def listing(uri: str) -> list[tuple[str, int, str]]:
    """Return (name relative to `uri`, bytes, etag) of every object below it, sorted; of an object itself, that one.

    Equal listings mean equal contents as far as the server tells: the fingerprint of a source is made from it.
    Raises UserError where `uri` is both, or where one object's name is a folder of others.
    """
    bucket, key = split_uri(uri)
    prefix = key.rstrip("/")
    below = prefix + "/" if prefix else ""
    with translated_errors(uri):
        items = with_retries(lambda: list(client().list_objects(bucket, prefix=prefix, recursive=True)))
    own, found = [], []
    for item in items:
        entry = (item.object_name.removeprefix(below), item.size, item.etag.strip('"'))
        if item.object_name == key:
            own.append((PurePosixPath(prefix).name, *entry[1:]))
        elif item.object_name.startswith(below) and not item.object_name.endswith("/"):
            found.append(entry)
    if own and found:
        raise UserError(f"{uri}: both an object and a folder of others; {uri}/ means the folder")
    _refuse_clashes(uri, {name for name, _, _ in found})
    return sorted(found or own)


def _refuse_clashes(uri: str, names: set[str]) -> None:
    """Raise UserError where one name is the folder of another, which no file system can hold."""
    parents = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if clash := sorted(names & parents):
        raise UserError(f"{uri}: {clash[0]} is both an object and a folder of others; rename one of them")


def _if_found(uri: str, bucket: str, call: Callable[[], T]) -> T | None:
    """Return `call()`, None where the object does not exist. Raises UserError where the bucket does not."""
    with translated_errors(uri):
        try:
            return with_retries(call)
        except Exception as error:
            if getattr(error, "code", "") in NOT_FOUND_CODES and has_bucket(bucket):
                return None
            raise


def _read(bucket: str, key: str) -> bytes:
    """Read all of one object."""
    response = client().get_object(bucket, key)
    try:
        data: bytes = response.read()
        return data
    finally:
        response.close()
        response.release_conn()
