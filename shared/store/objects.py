"""Read, write, remove and list single objects in S3."""

import io
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TypeVar

from shared.store.connection import client, has_bucket
from shared.store.environment import endpoint, split_uri
from shared.store.failures import NOT_FOUND_CODES, translated_errors
from shared.store.files.names import first_problem
from shared.store.http import limits
from shared.store.object_range import READ_BYTES
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
    """Read one object as a whole into memory."""
    bucket, key = split_uri(uri)
    with translated_errors(uri):
        return with_retries(lambda: _read(bucket, key))


def find(uri: str) -> bytes | None:
    """Read one small object, of `MAX_ANSWER_BYTES` at most, as a whole; None where it does not exist."""
    bucket, key = split_uri(uri)
    return _if_found(uri, bucket, lambda: _read(bucket, key, limits.MAX_ANSWER_BYTES))


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
    Raises UserError where `uri` is both, and where the names cannot be those of files below one folder. Objects that
    end in a slash and are empty, which consoles create as folders, are left out.
    """
    bucket, key = split_uri(uri)
    prefix = key.rstrip("/")
    below = prefix + "/" if prefix else ""
    with translated_errors(uri):
        items = with_retries(lambda: listed_objects(bucket, prefix))
    own, found = [], []
    for name, size, etag in items:
        if name == key and not key.endswith("/"):
            own.append((PurePosixPath(prefix).name, size, etag))
        elif name.startswith(below) and (size or not name.endswith("/")):
            found.append((name.removeprefix(below) or f"{PurePosixPath(prefix).name}/", size, etag))
    if own and found:
        raise UserError(f"{uri}: both an object and a folder of others; {uri}/ means the folder")
    if problem := first_problem(name for name, _, _ in found or own):
        raise UserError(f"{uri}: {problem}; rename the object, or remove it")
    return sorted(found or own)


def listed_objects(bucket: str, prefix: str) -> list[tuple[str, int, str]]:
    """Return (name, bytes, etag) of all objects whose names begin with `prefix`, by one attempt.

    Raises UserError where the server lists an object twice, as one does that repeats a page for ever, or without size.
    """
    found: dict[str, tuple[str, int, str]] = {}
    for item in client().list_objects(bucket, prefix=prefix, recursive=True):
        name, size = item.object_name, item.size
        if name in found or size is None or size < 0:
            problem = "twice" if name in found else f"with {size} bytes"
            raise UserError(
                f"s3://{bucket}/{prefix}: {endpoint()[0]} lists {name[:100]!r} {problem}; check that AWS_ENDPOINT_URL "
                "is the address of an S3 server"
            )
        found[name] = name, size, (item.etag or "").strip('"')
    return list(found.values())


def _if_found(uri: str, bucket: str, call: Callable[[], T]) -> T | None:
    """Return `call()`, None where the object does not exist. Raises UserError where the bucket does not."""
    with translated_errors(uri):
        try:
            return with_retries(call)
        except Exception as error:
            if getattr(error, "code", "") in NOT_FOUND_CODES and has_bucket(bucket):
                return None
            raise


def _read(bucket: str, key: str, max_bytes: int | None = None) -> bytes:
    """Read all of one object. Raises UserError where it has more bytes than `max_bytes`, or than were announced."""
    response = client().get_object(bucket, key)
    try:
        announced = response.length_remaining
        limit = max_bytes or (limits.MAX_ANSWER_BYTES if announced is None else announced)
        pieces, length, is_larger = [], 0, (announced or 0) > limit
        while not is_larger and (piece := response.read1(READ_BYTES)):
            pieces.append(piece)
            length += len(piece)
            is_larger = length > limit
        if is_larger:
            raise UserError(f"s3://{bucket}/{key}: larger than {limit} bytes; check the name")
        return b"".join(pieces)
    finally:
        response.close()
        response.release_conn()
