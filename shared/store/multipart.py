"""One large file to S3 in parts, going on with what an upload that was broken off left on the server.

The client's own upload forgets its parts when it fails, and leaves them in the bucket for ever when it is killed. So
its single requests are used here: parts that are there and agree are kept, whatever else is unfinished is removed.
"""

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from shared.store import s3
from shared.store.s3 import client, retried

MOST_PARTS = 10_000
"""Of one object, as S3 has it."""
NO_UPLOAD = "NoSuchUpload"
"""What the server says of an upload that was finished or given up, by whomever."""


class Upload:
    """A file on its way; `parts` are sent in any order, by any thread, and the last of them completes it."""

    def __init__(self, bucket: str, key: str, path: Path, headers: dict[str, str]) -> None:
        """headers: of the object, as `x-amz-meta-...`."""
        self.bucket, self.key, self.path, self.headers = bucket, key, path, headers
        size = path.stat().st_size
        self.step = max(s3.PART, -(-size // MOST_PARTS))
        self.count = -(-size // self.step)
        self.etags: dict[int, str] = {}
        self.continued = False
        """Whether parts of an earlier upload are among them: what that noted of the object is not known."""
        self._completing = threading.Lock()
        self._find()

    def jobs(self) -> list[Callable[[], bool]]:
        """What is left to do; the job that returns True has completed the object."""
        left = [number for number in range(1, self.count + 1) if number not in self.etags]
        return [lambda number=number: self._send(number) for number in left] or [self._complete]  # type: ignore[misc]

    def _find(self) -> None:
        """Take the parts of an unfinished upload that agree with the file, else begin a new one."""
        from minio.error import MinioException

        self.id = ""
        with suppress(MinioException):  # keys that may not look, servers that cannot: begin anew
            for identifier in self._unfinished():
                if not self.id and (etags := self._agreeing(identifier)):
                    self.id, self.etags, self.continued = identifier, etags, True
                else:
                    client()._abort_multipart_upload(self.bucket, self.key, identifier)
        if not self.id:
            self.id = retried(lambda: client()._create_multipart_upload(self.bucket, self.key, dict(self.headers)))

    def _unfinished(self) -> list[str]:
        """Uploads of this key, newest first."""
        # MinIO's server lists them for a whole key only; others take it as a prefix.
        found = retried(lambda: client()._list_multipart_uploads(self.bucket, prefix=self.key)).uploads
        own = [item for item in found if item.object_name == self.key]
        return [item.upload_id for item in sorted(own, key=lambda item: item.initiated_time, reverse=True)]

    def _agreeing(self, identifier: str) -> dict[int, str]:
        """Number -> etag of the parts that are there; none where a single one is not of this file."""
        etags, marker = {}, None
        while True:
            page = retried(
                lambda: client()._list_parts(self.bucket, self.key, identifier, part_number_marker=marker)  # noqa: B023
            )
            for part in page.parts:
                if hashlib.md5(self._read(part.part_number), usedforsecurity=False).hexdigest() != part.etag:
                    return {}
                etags[part.part_number] = part.etag
            if not page.is_truncated:
                return etags
            marker = str(page.next_part_number_marker)

    def _read(self, number: int) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek((number - 1) * self.step)
            return stream.read(self.step)

    def _send(self, number: int) -> bool:
        data = self._read(number)
        etag = retried(lambda: client()._upload_part(self.bucket, self.key, data, None, self.id, number), patient=True)
        with self._completing:
            self.etags[number] = etag
            last = len(self.etags) == self.count
        return self._complete() if last else False

    def _complete(self) -> bool:
        from minio.datatypes import Part

        parts = [Part(number, self.etags[number]) for number in range(1, self.count + 1)]
        retried(lambda: client()._complete_multipart_upload(self.bucket, self.key, self.id, parts), patient=True)
        return True
