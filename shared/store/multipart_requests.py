"""The six requests of a multipart upload.

minio has no public functions for them, and its `fput_object` cannot continue an interrupted upload, as the test
`test_an_upload_that_was_broken_off_goes_on` asks. So this module, and no other, calls its private ones.
"""

from typing import Any

from shared.store.connection import client
from shared.store.retries import with_retries
from shared.system.errors import UserError

_REQUIRED = (
    "_create_multipart_upload",
    "_list_multipart_uploads",
    "_list_parts",
    "_upload_part",
    "_complete_multipart_upload",
    "_abort_multipart_upload",
)


def check_client() -> None:
    """Raise UserError where the installed minio lacks one of the functions; called before anything is sent."""
    if missing := [name for name in _REQUIRED if not hasattr(client(), name)]:
        import minio

        raise UserError(
            f"minio {minio.__version__}: {missing[0]} is missing, uploads in parts need it; "
            "install the version in requirements/*.lock"
        )


def create_upload(bucket: str, key: str, headers: dict[str, str]) -> str:
    """Begin an upload; returns its id. headers: of the object."""
    identifier: str = with_retries(lambda: client()._create_multipart_upload(bucket, key, dict(headers)))
    return identifier


def unfinished_uploads(bucket: str, key: str) -> list[str]:
    """Return the ids of unfinished uploads of this key, newest first."""
    # MinIO's server lists them for a whole key only; others take it as a prefix.
    found = with_retries(lambda: client()._list_multipart_uploads(bucket, prefix=key)).uploads
    own = [item for item in found if item.object_name == key]
    return [item.upload_id for item in sorted(own, key=lambda item: item.initiated_time, reverse=True)]


def list_parts(bucket: str, key: str, upload_id: str) -> dict[int, str]:
    """Return number -> etag of the parts that have arrived."""
    etags: dict[int, str] = {}
    marker: str | None = None
    while True:
        page: Any = with_retries(
            lambda: client()._list_parts(bucket, key, upload_id, part_number_marker=marker)  # noqa: B023
        )
        etags |= {part.part_number: part.etag for part in page.parts}
        if not page.is_truncated:
            return etags
        marker = str(page.next_part_number_marker)


def upload_part(bucket: str, key: str, upload_id: str, number: int, data: bytes) -> str:
    """Send one part; returns its etag."""
    etag: str = with_retries(
        lambda: client()._upload_part(bucket, key, data, None, upload_id, number), wait_for_server=True
    )
    return etag


def complete_upload(bucket: str, key: str, upload_id: str, etags: dict[int, str]) -> None:
    """Make the object of its parts. etags: number -> etag of all of them."""
    from minio.datatypes import Part

    parts = [Part(number, etags[number]) for number in sorted(etags)]
    with_retries(lambda: client()._complete_multipart_upload(bucket, key, upload_id, parts), wait_for_server=True)


def abort_upload(bucket: str, key: str, upload_id: str) -> None:
    """Remove an unfinished upload and its parts."""
    client()._abort_multipart_upload(bucket, key, upload_id)
