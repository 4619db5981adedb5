"""Send artifacts to S3, `artifact.json` last: until then there is no artifact.

Two processes that send to one place at the same time know nothing of each other. Once its manifest is written, each
checks whether everything there is its own. A process that was overtaken raises an error, and removes a manifest whose
files are no longer those it lists. What is left of earlier artifacts is removed last.
"""

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.artifacts.manifest import MANIFEST, File, Manifest, read_manifest
from shared.store import transfer
from shared.store.connection import client
from shared.store.environment import split_uri
from shared.store.failures import NOT_FOUND_CODES, translated_errors
from shared.store.multipart import NO_UPLOAD, Upload
from shared.store.objects import PROBE_SUFFIX, exists, find, listed_objects, probe
from shared.store.retries import with_retries
from shared.store.transfer import run_parallel
from shared.system.errors import UserError
from shared.system.log import log

SHA256_HEADER = "x-amz-meta-sha256"
"""Header of each object sent: hash of its contents."""
PART_OF_HEADER = "x-amz-meta-part-of"
"""Header of each object sent: hash of the place of the artifact that it is part of."""


@dataclass(frozen=True)
class Destination:
    """Where an artifact is sent to."""

    uri: str
    bucket: str
    prefix: str

    @classmethod
    def of(cls, uri: str) -> "Destination":
        """Raises UserError for a bare bucket."""
        bucket, key = split_uri(uri)
        if not key.rstrip("/"):
            raise UserError(f"{uri}: an artifact needs a name of its own in the bucket: {uri.rstrip('/')}/NAME")
        return cls(uri.rstrip("/"), bucket, key.rstrip("/"))

    @property
    def mark(self) -> str:
        """Value of `PART_OF_HEADER`. It tells this artifact's objects from those of an artifact below it."""
        return hashlib.sha256(self.prefix.encode()).hexdigest()[:32]

    def key(self, name: str) -> str:
        """Object of a file of the artifact."""
        return f"{self.prefix}/{name}"


# --- before anything is computed ----------------------------------------------------------------------------------


def claim(uri: str, overwrite: bool) -> None:
    """Raise UserError where an artifact cannot be sent to `uri`, or must not be: something else stands there."""
    place = Destination.of(uri)
    if not overwrite:
        refuse_finished(uri)
    if not exists(f"{place.uri}/{MANIFEST}") and (foreign := _foreign(place)):
        raise UserError(f"{uri} holds objects that are no part of an artifact ({foreign}); give another path")
    probe(f"{place.uri}/")


def refuse_finished(uri: str) -> None:
    """Raise UserError where a finished artifact stands at `uri`."""
    if exists(f"{uri.rstrip('/')}/{MANIFEST}"):
        raise UserError(f"{uri} holds a finished artifact; give another path, or --overwrite")


def _foreign(place: Destination) -> str:
    """Return the name of an object below that no upload of an artifact to this place left there, or an empty string."""
    with translated_errors(place.uri):
        return next((name for name in _names(place) if not _is_own(place, name)), "")


# --- sending ------------------------------------------------------------------------------------------------------


def send(folder: Path, uri: str) -> None:
    """Upload an artifact in place of what stands at `uri`.

    Raises UserError where another process writes something else there meanwhile.
    """
    place = Destination.of(uri)
    manifest, files = (folder / MANIFEST).read_bytes(), read_manifest(folder).files
    with translated_errors(uri):
        replaced = _listed_files(find(f"{place.uri}/{MANIFEST}"))
        with_retries(lambda: client().remove_object(place.bucket, place.key(MANIFEST)))
        try:
            _send_files(place, folder, files)
            _send_manifest(place, manifest, files)
        except BaseException:
            with suppress(Exception):  # the first error counts
                _withdraw(place)
            raise
        _remove_leftovers(place, files, replaced)


def _send_files(place: Destination, folder: Path, files: dict[str, File]) -> None:
    """Send the files that are not there yet, large ones in parts, all in parallel."""
    jobs: dict[str, list[Callable[[], Any]]] = {}

    def prepare(name: str) -> None:
        if _is_there(place, name, files[name]):
            return  # from an interrupted upload
        headers = {SHA256_HEADER: files[name].sha256, PART_OF_HEADER: place.mark}
        if files[name].size <= transfer.PART_BYTES:
            jobs[name] = [lambda: _put_file(place, name, folder / name, headers)]
            return
        upload = Upload(place.bucket, place.key(name), folder / name, headers)
        jobs[name] = [lambda job=job: _send_part(place, name, files[name], upload, job) for job in upload.jobs()]  # type: ignore[misc]

    run_parallel(prepare, sorted(files))
    run_parallel(lambda job: job(), [job for name in sorted(jobs) for job in jobs[name]])


def _send_part(place: Destination, name: str, file: File, upload: Upload, job: Callable[[], bool]) -> None:
    """Do one job of an upload. Raises UserError where another process has ended the upload with other contents."""
    from minio.error import S3Error

    try:
        completed = job()
    except S3Error as error:
        if error.code != NO_UPLOAD:
            raise
        if not _is_there(place, name, file):
            raise _overtaken(place, name) from error
        return
    if completed and upload.continued and not _is_there(place, name, file):  # begun by another file's upload
        _put_file(place, name, upload.path, upload.headers)


def _put_file(place: Destination, name: str, path: Path, headers: dict[str, str]) -> None:
    """Send one file as a whole."""
    with_retries(
        lambda: client().fput_object(
            place.bucket, place.key(name), str(path), metadata=dict(headers), part_size=transfer.PART_BYTES
        ),
        wait_for_server=True,
    )


def _send_manifest(place: Destination, manifest: bytes, files: dict[str, File]) -> None:
    """Write the manifest, and check that it and all files that it lists stand there then."""

    def check(name: str) -> None:
        if not _is_there(place, name, files[name]):
            raise _overtaken(place, name)

    if find(f"{place.uri}/{MANIFEST}") not in (None, manifest):
        run_parallel(check, sorted(files))  # another's manifest is replaced only where the files are no longer its own
    target = place.key(MANIFEST)
    with_retries(
        lambda: client().put_object(place.bucket, target, io.BytesIO(manifest), len(manifest)), wait_for_server=True
    )
    run_parallel(check, sorted(files))
    if find(f"{place.uri}/{MANIFEST}") != manifest:
        raise _overtaken(place, MANIFEST)


def _overtaken(place: Destination, name: str) -> UserError:
    return UserError(
        f"{place.uri}: another process is writing there at this moment ({name} is not what was sent); "
        "wait until it ends, or give another uri"
    )


def _withdraw(place: Destination) -> None:
    """After a failure, remove a manifest whose files are not there; an artifact that is whole stays."""
    there = find(f"{place.uri}/{MANIFEST}")
    if there is None:
        return
    files = _listed_files(there)
    if files and all(_may_be_there(place, name, file) for name, file in files.items()):
        _remove_leftovers(place, files, {})
    else:
        client().remove_object(place.bucket, place.key(MANIFEST))


def _remove_leftovers(place: Destination, files: dict[str, File], replaced: dict[str, File]) -> None:
    """Remove what is left of artifacts that stood there before, `replaced` among them.

    A reader that copies the whole prefix would find them beside the artifact's own files.
    """
    for name in _names(place):
        if name in files or name == MANIFEST:
            continue
        if name in replaced or _is_own(place, name):
            client().remove_object(place.bucket, place.key(name))
        else:
            log.warning("%s/%s is no part of the artifact, and stays", place.uri, name)


# --- what is there ------------------------------------------------------------------------------------------------


def _names(place: Destination) -> list[str]:
    """Return the names of all objects below the place."""
    below = place.key("")
    return [name.removeprefix(below) for name, _, _ in with_retries(lambda: listed_objects(place.bucket, below))]


def _is_there(place: Destination, name: str, expected: File) -> bool:
    """Say whether the object exists with this size, and with this hash in its headers."""
    found = _stat(place, name)
    return found is not None and found[0] == expected.size and found[1].get(SHA256_HEADER) == expected.sha256


def _may_be_there(place: Destination, name: str, expected: File) -> bool:
    """Say whether the object exists with this size, and no other hash in its headers."""
    found = _stat(place, name)
    return found is not None and found[0] == expected.size and found[1].get(SHA256_HEADER) in (None, expected.sha256)


def _is_own(place: Destination, name: str) -> bool:
    """Say whether an upload of an artifact to this place, or a probe, left the object."""
    found = _stat(place, name)
    return found is None or name == PROBE_SUFFIX or found[1].get(PART_OF_HEADER) == place.mark


def _stat(place: Destination, name: str) -> tuple[int, dict[str, str]] | None:
    """Return (bytes, headers with lower-case names) of an object; None where it does not exist."""
    try:
        found = with_retries(lambda: client().stat_object(place.bucket, place.key(name)), wait_for_server=True)
    except Exception as error:
        if getattr(error, "code", "") in NOT_FOUND_CODES:
            return None
        raise
    return found.size, {header.lower(): value for header, value in (found.metadata or {}).items()}


def _listed_files(manifest: bytes | None) -> dict[str, File]:
    """Return the files that a manifest lists; none where it cannot be read."""
    with suppress(ValueError):
        return Manifest.model_validate_json(manifest or b"").files
    return {}
