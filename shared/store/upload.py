"""Artifacts from here to S3, `artifact.json` last: until then there is no artifact.

Two processes that send to one place at a time know nothing of each other. Each looks, once its manifest stands, whether
all that stands there is its own; one that was overtaken says so, and takes away a manifest whose files are no longer
what it lists. What is left of earlier artifacts goes last.
"""

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.artifacts.manifest import MANIFEST, File, Manifest, read_manifest
from shared.store import s3
from shared.store.multipart import NO_UPLOAD, Upload
from shared.store.objects import PROBE, exists, find, probe
from shared.store.s3 import GONE, client, explained, retried, side_by_side, split
from shared.system.errors import UserError
from shared.system.log import log

SHA256 = "x-amz-meta-sha256"
"""Header of an object that was sent: hash of its contents."""
PART_OF = "x-amz-meta-part-of"
"""Header of an object that was sent: which artifact it is part of, as a hash of that one's place."""


@dataclass(frozen=True)
class Place:
    """Where an artifact goes."""

    uri: str
    bucket: str
    prefix: str

    @classmethod
    def of(cls, uri: str) -> "Place":
        """Raises UserError for a bare bucket."""
        bucket, key = split(uri)
        if not key.rstrip("/"):
            raise UserError(f"{uri}: an artifact needs a name of its own in the bucket: {uri.rstrip('/')}/NAME")
        return cls(uri.rstrip("/"), bucket, key.rstrip("/"))

    @property
    def mark(self) -> str:
        """What its objects carry: names of nested artifacts begin as its own do."""
        return hashlib.sha256(self.prefix.encode()).hexdigest()[:32]

    def key(self, name: str) -> str:
        """The object of a file of the artifact."""
        return f"{self.prefix}/{name}"


# --- before anything is computed ----------------------------------------------------------------------------------


def claim(uri: str, overwrite: bool) -> None:
    """Raise UserError where an artifact cannot be sent to `uri`, or must not be: something else stands there."""
    place = Place.of(uri)
    if not overwrite:
        refuse_finished(uri)
    if not exists(f"{place.uri}/{MANIFEST}") and (foreign := _foreign(place)):
        raise UserError(f"{uri} holds objects that are no part of an artifact ({foreign}); give another path")
    probe(f"{place.uri}/")


def refuse_finished(uri: str) -> None:
    """Raise UserError where a finished artifact stands at `uri`."""
    if exists(f"{uri.rstrip('/')}/{MANIFEST}"):
        raise UserError(f"{uri} holds a finished artifact; give another path, or --overwrite")


def _foreign(place: Place) -> str:
    """Name of an object below that no upload of an artifact to this place left there; empty where there is none."""
    with explained(place.uri):
        return next((name for name in _listed(place) if not _is_own(place, name)), "")


# --- sending ------------------------------------------------------------------------------------------------------


def send(folder: Path, uri: str) -> None:
    """Upload an artifact; what stood at `uri` is replaced.

    Raises UserError where another process wrote something else there meanwhile.
    """
    place = Place.of(uri)
    manifest, files = (folder / MANIFEST).read_bytes(), read_manifest(folder).files
    with explained(uri):
        replaced = _files(find(f"{place.uri}/{MANIFEST}"))
        retried(lambda: client().remove_object(place.bucket, place.key(MANIFEST)))
        try:
            _send_files(place, folder, files)
            _finish(place, manifest, files)
        except BaseException:
            with suppress(Exception):  # the first error counts
                _withdraw(place)
            raise
        _tidy(place, files, replaced)


def _send_files(place: Place, folder: Path, files: dict[str, File]) -> None:
    """Those that are not there yet, large ones in parts, all side by side."""
    jobs: dict[str, list[Callable[[], Any]]] = {}

    def prepare(name: str) -> None:
        if _holds(place, name, files[name]):
            return  # of an upload that was broken off
        headers = {SHA256: files[name].sha256, PART_OF: place.mark}
        if files[name].size <= s3.PART:
            jobs[name] = [lambda: _put(place, name, folder / name, headers)]
            return
        upload = Upload(place.bucket, place.key(name), folder / name, headers)
        jobs[name] = [lambda job=job: part(name, upload, job) for job in upload.jobs()]  # type: ignore[misc]

    def part(name: str, upload: Upload, job: Callable[[], bool]) -> None:
        from minio.error import S3Error

        try:
            completed = job()
        except S3Error as error:
            if error.code != NO_UPLOAD:
                raise
            if not _holds(place, name, files[name]):
                raise _overtaken(place, name) from error
            return
        if completed and upload.continued and not _holds(place, name, files[name]):
            _put(place, name, folder / name, upload.headers)

    side_by_side(prepare, sorted(files))
    side_by_side(lambda job: job(), [job for name in sorted(jobs) for job in jobs[name]])


def _put(place: Place, name: str, path: Path, headers: dict[str, str]) -> None:
    """One file as a whole."""
    target, note = place.key(name), dict(headers)
    retried(
        lambda: client().fput_object(place.bucket, target, str(path), metadata=note, part_size=s3.PART), patient=True
    )


def _finish(place: Place, manifest: bytes, files: dict[str, File]) -> None:
    """Write the manifest, and look whether it and all that it lists stand there then."""

    def check(name: str) -> None:
        if not _holds(place, name, files[name]):
            raise _overtaken(place, name)

    if find(f"{place.uri}/{MANIFEST}") not in (None, manifest):
        side_by_side(check, sorted(files))  # another's stands there: replaced only where its files are mine by now
    target = place.key(MANIFEST)
    retried(lambda: client().put_object(place.bucket, target, io.BytesIO(manifest), len(manifest)), patient=True)
    side_by_side(check, sorted(files))
    if find(f"{place.uri}/{MANIFEST}") != manifest:
        raise _overtaken(place, MANIFEST)


def _overtaken(place: Place, name: str) -> UserError:
    return UserError(
        f"{place.uri}: another process is writing there at this moment ({name} is not what was sent); "
        "wait for it, or give another uri"
    )


def _withdraw(place: Place) -> None:
    """After a failure: what stands there stays where it is whole, else it must not pass for an artifact."""
    there = find(f"{place.uri}/{MANIFEST}")
    if there is None:
        return
    files = _files(there)
    if files and all(_may_be(place, name, file) for name, file in files.items()):
        _tidy(place, files, {})
    else:
        client().remove_object(place.bucket, place.key(MANIFEST))


def _tidy(place: Place, files: dict[str, File], replaced: dict[str, File]) -> None:
    """Remove what is left of other artifacts that stood there, `replaced` among them; whoever reads the prefix as it
    is would find them beside the artifact's own files.
    """
    for name in _listed(place):
        if name in files or name == MANIFEST:
            continue
        if name in replaced or _is_own(place, name):
            client().remove_object(place.bucket, place.key(name))
        else:
            log.warning("%s/%s is no part of the artifact, and stays", place.uri, name)


# --- what is there ------------------------------------------------------------------------------------------------


def _listed(place: Place) -> list[str]:
    """Names below the place."""
    below = place.key("")
    items = retried(lambda: list(client().list_objects(place.bucket, prefix=below, recursive=True)))
    return [item.object_name.removeprefix(below) for item in items]


def _holds(place: Place, name: str, expected: File) -> bool:
    """Whether the object is there, with the size and the hash that were noted when it was sent."""
    found = _stat(place, name)
    return found is not None and found[0] == expected.size and found[1].get(SHA256) == expected.sha256


def _may_be(place: Place, name: str, expected: File) -> bool:
    """Whether the object is there and nothing noted of it speaks against its being this file."""
    found = _stat(place, name)
    return found is not None and found[0] == expected.size and found[1].get(SHA256) in (None, expected.sha256)


def _is_own(place: Place, name: str) -> bool:
    """Whether an upload of an artifact to this place left the object, or a look whether one can write there."""
    found = _stat(place, name)
    return found is None or name == PROBE or found[1].get(PART_OF) == place.mark


def _stat(place: Place, name: str) -> tuple[int, dict[str, str]] | None:
    """(bytes, headers in lower case) of an object; None where there is none."""
    try:
        found = retried(lambda: client().stat_object(place.bucket, place.key(name)), patient=True)
    except Exception as error:
        if getattr(error, "code", "") in GONE:
            return None
        raise
    return found.size, {header.lower(): value for header, value in (found.metadata or {}).items()}


def _files(manifest: bytes | None) -> dict[str, File]:
    """What a manifest lists; nothing where it cannot be read."""
    with suppress(ValueError):
        return Manifest.model_validate_json(manifest or b"").files
    return {}
