"""Read a range of an object into a file."""

import re
from pathlib import Path
from typing import Any

from shared.store.connection import client
from shared.store.environment import endpoint
from shared.store.retries import with_retries
from shared.system.errors import UserError

READ_BYTES = 2**20
"""Bytes taken from the network at a time."""


def read_range(path: Path, bucket: str, key: str, offset: int, length: int, size: int) -> None:
    """Read bytes of an object from `offset` to the same place in a file; an interrupted read is continued.

    size: bytes of the whole object. Raises UserError where the server sends anything but the bytes asked for.
    """
    arrived = 0

    def read_rest() -> None:
        nonlocal arrived
        if arrived == length:
            return
        response = client().get_object(bucket, key, offset=offset + arrived, length=length - arrived)
        try:
            if not _is_range(response, offset + arrived, length - arrived, size):
                raise _changed(bucket, key, offset, length)
            with path.open("r+b") as stream:
                stream.seek(offset + arrived)
                while data := response.read1(READ_BYTES):
                    if len(data) > length - arrived:
                        raise _changed(bucket, key, offset, length)
                    arrived += stream.write(data)
        finally:
            response.close()
            response.release_conn()

    with_retries(read_rest, wait_for_server=True, progress=lambda: arrived)
    if arrived != length:
        raise _changed(bucket, key, offset, length)


def _is_range(response: Any, first: int, length: int, size: int) -> bool:
    """Say whether an answer is these bytes of an object, by its headers; some servers ignore ranges."""
    if (response.length_remaining or 0) > length:
        return False
    if response.status == 200:
        return length == size
    found = re.match(r"bytes (\d+)-\d+/(\d+|\*)$", response.headers.get("Content-Range", ""))
    return found is not None and found[1] == str(first) and found[2] in (str(size), "*")


def _changed(bucket: str, key: str, offset: int, length: int) -> UserError:
    return UserError(
        f"s3://{bucket}/{key}: {endpoint()[0]} sends other bytes than the {length} from {offset} that are expected, so "
        "the object has changed; fetch it again"
    )
