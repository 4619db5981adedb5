"""Objects in S3: bring an artifact here, send one there, checked by content.

`shared.s3` says where the server is and what happens when it is not. `CYTOLOOM_CACHE`, a folder, keeps what was fetched
by its digest; several processes may share it. What was broken off goes on where it was: files that are there already
are not sent again, and parts that have arrived are not fetched again.
"""

import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from shared.artifacts import MANIFEST, File, read_manifest, verify
from shared.errors import ArtifactError, UserError
from shared.log import log
from shared.part_hashes import PartHashes
from shared.s3 import GONE, client, explained, has_bucket, retried, side_by_side, split

PART = 32 * 2**20
"""Bytes of a part, both ways: a large file travels in parts, side by side."""
BLOCK = 2**20
"""Bytes that are taken from the network at a time."""
SHA256 = "x-amz-meta-sha256"
"""Header of an object that was sent: hash of its contents."""


# --- single objects -----------------------------------------------------------------------------------------------


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


def remove(uri: str) -> None:
    """Remove one object; that there is none is fine."""
    bucket, key = split(uri)
    with explained(uri):
        retried(lambda: client().remove_object(bucket, key))


def listing(uri: str) -> list[tuple[str, int, str]]:
    """(name relative to `uri`, bytes, etag) of every object below it, sorted; of an object itself, that one.

    Equal listings mean equal contents as far as the server tells: what a fingerprint of a source is made from.
    """
    bucket, key = split(uri)
    prefix = key.rstrip("/")
    below = prefix + "/" if prefix else ""
    with explained(uri):
        items = retried(lambda: list(client().list_objects(bucket, prefix=prefix, recursive=True)))
    found = []
    for item in items:
        if item.object_name == prefix:
            found.append((PurePosixPath(prefix).name, item.size, item.etag.strip('"')))
        elif item.object_name.startswith(below) and not item.object_name.endswith("/"):
            found.append((item.object_name.removeprefix(below), item.size, item.etag.strip('"')))
    return sorted(found)


# --- artifacts, there ---------------------------------------------------------------------------------------------


def send(folder: Path, uri: str) -> None:
    """Upload an artifact, its `artifact.json` last: until then there is no artifact at `uri`.

    Raises UserError where another process wrote something else there meanwhile.
    """
    bucket, key = split(uri)
    prefix = key.rstrip("/")
    if not prefix:
        raise UserError(f"{uri}: an artifact needs a name of its own in the bucket: {uri.rstrip('/')}/NAME")
    files = read_manifest(folder).files

    def there(name: str) -> bool:
        return _holds(bucket, f"{prefix}/{name}", files[name])

    def upload(name: str) -> None:
        path, expected = str(folder / name), files.get(name)
        if expected and there(name):
            return  # of an upload that was broken off
        metadata: dict[str, Any] = {"sha256": expected.sha256} if expected else {}
        target = f"{prefix}/{name}"
        retried(lambda: client().fput_object(bucket, target, path, metadata=metadata, part_size=PART), patient=True)

    def check(name: str) -> None:
        if not there(name):
            raise UserError(
                f"{uri}: another process is writing there at this moment ({name} is not what was sent); "
                "wait for it, or give another uri"
            )

    with explained(uri):
        retried(lambda: client().remove_object(bucket, f"{prefix}/{MANIFEST}"))
        side_by_side(upload, sorted(files))
        upload(MANIFEST)
        side_by_side(check, sorted(files))


def _holds(bucket: str, key: str, expected: File) -> bool:
    """Whether the object is there, with the size and the hash that were noted when it was sent."""
    try:
        found = retried(lambda: client().stat_object(bucket, key), patient=True)
    except Exception as error:
        if getattr(error, "code", "") in GONE:
            return False
        raise
    noted = {name.lower(): value for name, value in (found.metadata or {}).items()}.get(SHA256)
    return found.size == expected.size and noted == expected.sha256


# --- artifacts, here ----------------------------------------------------------------------------------------------


def fetch(uri: str, folder: Path) -> None:
    """Download an artifact and check it; `folder` appears only once every byte agrees with `artifact.json`."""
    uri = uri.rstrip("/")
    if not exists(f"{uri}/{MANIFEST}"):
        raise ArtifactError(f"{uri}: no {MANIFEST} there, so it is no finished artifact; run the stage that makes it")
    manifest = get(f"{uri}/{MANIFEST}")
    kept = _kept(manifest)
    if kept is None:
        _fetch(uri, manifest, folder)
        return
    try:
        with _locked(kept):
            if _is_whole(kept):
                log.info("%s: from the cache", uri)
            else:
                _fetch(uri, manifest, kept)
            with _beside(folder) as partial:
                shutil.copytree(kept, partial, copy_function=_link, dirs_exist_ok=True)
    except OSError as error:
        log.info("the cache cannot be used: %s", error)
        _fetch(uri, manifest, folder)


def fetch_prefix(uri: str, folder: Path) -> None:
    """Download every object below `uri`, or the one object `uri`, as plain files into `folder`."""
    found = listing(uri)
    if not found:
        raise UserError(f"{uri}: no object there; check the name, or upload the images first")
    if len(found) == 1 and exists(uri):
        uri = uri.rpartition("/")[0]
    with _resumed(folder, json.dumps([uri, found]).encode()) as partial:
        _download(uri.rstrip("/"), {name: size for name, size, _ in found}, partial)


def _fetch(uri: str, manifest: bytes, folder: Path) -> None:
    """Download and check into `folder`, going on with what an earlier try left."""
    for last in (False, True):
        with _resumed(folder, manifest) as partial:
            went_on = _journal(partial).is_file()
            (partial / MANIFEST).write_bytes(manifest)
            sizes = {name: file.size for name, file in read_manifest(partial).files.items()}
            hashes = _download(uri, sizes, partial, hashed=True)
            _journal(partial).unlink(missing_ok=True)
            try:
                verify(partial, hashes=hashes)
                return
            except ArtifactError as error:
                shutil.rmtree(partial)
                if last or not went_on:
                    raise ArtifactError(str(error).replace(str(partial), uri)) from error
                log.info("%s: what an earlier try left is damaged; fetched again", uri)


def _download(uri: str, sizes: dict[str, int], folder: Path, hashed: bool = False) -> dict[str, str]:
    """Fetch `uri/NAME` for every name, large ones in parts, all side by side, but for the parts in the journal.

    hashed: return name -> sha256 of what stands there then.
    """
    bucket, key = split(uri)
    done = _done(folder)
    for name, size in sizes.items():
        path = inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.stat().st_size != size:
            done = {part for part in done if part[0] != name}
            with path.open("wb") as stream:
                stream.truncate(size)
    writing, hashes = threading.Lock(), PartHashes(folder, sizes if hashed else {}, done, PART)
    with _journal(folder).open("a") as journal, explained(uri):

        def part(job: tuple[str, int, int]) -> None:
            name, offset, length = job
            target = f"{key}/{name}" if key else name
            retried(lambda: _read_to(folder / name, bucket, target, offset, length), patient=True)
            with writing:
                journal.write(json.dumps([name, offset]) + "\n")
                journal.flush()
            hashes.arrived(name, offset)

        side_by_side(part, [job for job in _parts(sizes) if job[:2] not in done])
    return hashes.finished()


def _parts(sizes: dict[str, int]) -> Iterator[tuple[str, int, int]]:
    """(name, offset, length) that together cover every file."""
    for name, size in sizes.items():
        for offset in range(0, size, PART):
            yield name, offset, min(PART, size - offset)


def _read(bucket: str, key: str) -> bytes:
    """All of one object."""
    response = client().get_object(bucket, key)
    try:
        return response.read()
    finally:
        response.close()
        response.release_conn()


def _read_to(path: Path, bucket: str, key: str, offset: int, length: int) -> None:
    """Bytes of one object from `offset` to the same place in a file, block by block."""
    response = client().get_object(bucket, key, offset=offset, length=length)
    arrived = 0
    try:
        with path.open("r+b", buffering=0) as stream:
            stream.seek(offset)
            for block in response.stream(BLOCK):
                stream.write(block)
                arrived += len(block)
    finally:
        response.close()
        response.release_conn()
    if arrived != length:
        raise UserError(f"s3://{bucket}/{key}: {arrived} bytes from {offset} where {length} are expected; it changed")


def inside(folder: Path, name: str) -> Path:
    """`folder/name`, where that is really inside `folder`; object names may be anything."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise UserError(f"{name!r}: an object's name that leads out of its folder; rename it in the bucket")
    return folder / name


# --- folders that appear as a whole -------------------------------------------------------------------------------


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` if all goes well, and vanishes if not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        yield partial
        _replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _resumed(folder: Path, identity: bytes) -> Iterator[Path]:
    """A folder for contents of this identity that takes the place of `folder`, where it still is there at the end.

    After an error it stays, hidden, and the next call finds it as it was left.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.partial-{hashlib.sha256(identity).hexdigest()[:12]}"
    with _locked(partial):
        partial.mkdir(exist_ok=True)
        yield partial
        _journal(partial).unlink(missing_ok=True)
        if partial.is_dir():
            _replace(partial, folder)


def _replace(partial: Path, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    partial.replace(folder)


def _journal(partial: Path) -> Path:
    """Names and offsets of the parts that have arrived, a line each; beside the folder."""
    return partial.with_name(f"{partial.name}.parts")


def _done(partial: Path) -> set[tuple[str, int]]:
    """What the journal of an earlier try says; a line that was broken off ends it."""
    done: set[tuple[str, int]] = set()
    if _journal(partial).is_file():
        for line in _journal(partial).read_text().splitlines():
            try:
                name, offset = json.loads(line)
            except ValueError:
                break
            done.add((name, offset))
    return done


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """One process at a time works on `place`; the others wait. Where the file system has no locks, none does."""
    place.parent.mkdir(parents=True, exist_ok=True)
    path = place.parent / f".{place.name.lstrip('.')}.lock"
    while True:
        lock = path.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            break
        with suppress(FileNotFoundError):  # else the last holder removed it meanwhile: once more
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                break
        lock.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.close()


def _kept(manifest: bytes) -> Path | None:
    """Where `CYTOLOOM_CACHE` has, or will have, the artifact with this manifest."""
    root = os.environ.get("CYTOLOOM_CACHE")
    return Path(root) / "artifacts" / hashlib.sha256(manifest).hexdigest() if root else None


def _is_whole(kept: Path) -> bool:
    """Whether the cache holds the artifact; one that is damaged is removed."""
    if not kept.is_dir():
        return False
    try:
        verify(kept)
        return True
    except ArtifactError as error:
        log.info("the cached copy is damaged and fetched again (%s)", error)
        shutil.rmtree(kept)
        return False


def _link(source: str, target: str) -> None:
    """A hard link where the file system allows: fetched artifacts are never written to."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)
