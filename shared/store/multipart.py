"""Upload one large file in parts, and continue an interrupted upload with the parts that have arrived.

The client's own upload forgets its parts when it fails, and leaves them in the bucket for ever when it is killed. Here
parts that agree with the file are kept, and every other unfinished upload of the object is removed.
"""

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from shared.store import multipart_requests as requests
from shared.store import transfer

MAX_PARTS = 10_000
"""Parts of one object that S3 allows."""
NO_UPLOAD = "NoSuchUpload"
"""S3 error code of an upload that was completed or aborted, perhaps by another process."""


class Upload:
    """A file in transit. `jobs` run in any order in any thread, and the last of them completes the object."""

    def __init__(self, bucket: str, key: str, path: Path, headers: dict[str, str]) -> None:
        """headers: of the object, as `x-amz-meta-...`."""
        requests.check_client()
        self.bucket, self.key, self.path, self.headers = bucket, key, path, headers
        size = path.stat().st_size
        self.part_bytes = max(transfer.PART_BYTES, -(-size // MAX_PARTS))
        self.count = -(-size // self.part_bytes)
        self.etags: dict[int, str] = {}
        self.continued = False
        """Whether parts of an earlier upload are used; the headers that it was begun with are not known."""
        self._lock = threading.Lock()
        self.id = self._continue() or requests.create_upload(bucket, key, headers)

    def jobs(self) -> list[Callable[[], bool]]:
        """Return the work that is left; the job that returns True has completed the object."""
        left = [number for number in range(1, self.count + 1) if number not in self.etags]
        return [lambda number=number: self._send(number) for number in left] or [self._complete]  # type: ignore[misc]

    def _continue(self) -> str:
        """Use the parts of an unfinished upload that agree with the file, and remove other uploads.

        Returns the id of the unfinished upload, empty where there is none.
        """
        from minio.error import MinioException

        chosen = ""
        with suppress(MinioException):  # where the keys may not list uploads, or the server cannot: begin anew
            for identifier in requests.unfinished_uploads(self.bucket, self.key):
                if not chosen and (etags := self._agreeing_parts(identifier)):
                    chosen, self.etags, self.continued = identifier, etags, True
                else:
                    requests.abort_upload(self.bucket, self.key, identifier)
        return chosen

    def _agreeing_parts(self, identifier: str) -> dict[int, str]:
        """Return number -> etag of the parts that have arrived; empty where any of them is not of this file."""
        etags = requests.list_parts(self.bucket, self.key, identifier)
        for number, etag in etags.items():
            if hashlib.md5(self._read(number), usedforsecurity=False).hexdigest() != etag:
                return {}
        return etags

    def _read(self, number: int) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek((number - 1) * self.part_bytes)
            return stream.read(self.part_bytes)

    def _send(self, number: int) -> bool:
        etag = requests.upload_part(self.bucket, self.key, self.id, number, self._read(number))
        with self._lock:
            self.etags[number] = etag
            is_last = len(self.etags) == self.count
        return self._complete() if is_last else False

    def _complete(self) -> bool:
        requests.complete_upload(self.bucket, self.key, self.id, self.etags)
        return True
