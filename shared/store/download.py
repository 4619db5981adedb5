"""Artifacts and plain objects from S3 to here, checked by content, going on where an earlier try was broken off.

`CYTOLOOM_CACHE`, a folder, keeps what was fetched by its digest; several processes may share it.
"""

import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from shared.artifacts.kinds import Artifact
from shared.artifacts.manifest import MANIFEST, parse_manifest, read_manifest, verify
from shared.store import s3
from shared.store.incremental_sha256 import PartHashes
from shared.store.objects import exists, find, listing
from shared.store.resumable_folders import beside, journal_of, locked, parts_there, resumed
from shared.store.s3 import client, explained, retried, side_by_side, split
from shared.system.errors import ArtifactError, UserError
from shared.system.log import log

BLOCK = 2**20
"""Bytes that are taken from the network at a time."""


def fetch(uri: str, folder: Path, kind: type[Artifact] | None = None) -> None:
    """Download an artifact and check it; `folder` appears only once every byte agrees with `artifact.json`.

    kind: what it must be, which is known before anything large is fetched.
    """
    uri = uri.rstrip("/")
    manifest = find(f"{uri}/{MANIFEST}")
    if manifest is None:
        raise ArtifactError(f"{uri}: no {MANIFEST} there, so it is no finished artifact; run the stage that makes it")
    parse_manifest(manifest, uri, kind)
    kept = _kept(manifest)
    if kept is None:
        _fetch(uri, manifest, folder)
        return
    try:
        with locked(kept):
            if _is_whole(kept):
                log.info("%s: from the cache", uri)
            else:
                _fetch(uri, manifest, kept)
            with beside(folder) as partial:
                shutil.copytree(kept, partial, copy_function=_link, dirs_exist_ok=True)
    except OSError as error:
        log.info("the cache cannot be used: %s", error)
        _fetch(uri, manifest, folder)


def fetch_prefix(uri: str, folder: Path) -> None:
    """Download every object below `uri`, or the one object `uri`, as plain files into `folder`."""
    _fetch_plain(uri, _some(uri), folder)


@contextmanager
def borrowed_prefix(uri: str) -> Iterator[Path]:
    """What `fetch_prefix` brings, in a folder that goes when the block ends.

    It is below `CYTOLOOM_CACHE`, where that is set: after a process that was killed the next one goes on from there.
    """
    found = _some(uri)
    with ExitStack() as stack:
        folder = _place_in_cache(uri, found, stack)
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="cytoloom-source-", dir=os.environ.get("CYTOLOOM_TMP"))
            folder = Path(stack.enter_context(temporary)) / "source"
        if not folder.is_dir():
            _fetch_plain(uri, found, folder)
        yield folder


def _place_in_cache(uri: str, found: list[tuple[str, int, str]], stack: ExitStack) -> Path | None:
    """A place for these objects, held until the stack is unwound; None where there is no cache, or another is there."""
    root = os.environ.get("CYTOLOOM_CACHE")
    if not root:
        return None
    place = Path(root) / "sources" / hashlib.sha256(json.dumps([uri, found]).encode()).hexdigest()[:32]
    try:
        if not stack.enter_context(locked(place, wait=False)):
            return None
    except OSError as error:
        log.info("the cache cannot be used: %s", error)
        return None
    stack.callback(shutil.rmtree, place, ignore_errors=True)
    return place


def _some(uri: str) -> list[tuple[str, int, str]]:
    """The listing, which must not be empty."""
    if found := listing(uri):
        return found
    raise UserError(f"{uri}: no object there; check the name, or upload the images first")


def _fetch_plain(uri: str, found: list[tuple[str, int, str]], folder: Path) -> None:
    """Download what was listed."""
    if len(found) == 1 and not uri.endswith("/") and exists(uri):
        uri = uri.rpartition("/")[0]
    with resumed(folder, json.dumps([uri, found]).encode()) as partial:
        _download(uri.rstrip("/"), {name: size for name, size, _ in found}, partial)


def _fetch(uri: str, manifest: bytes, folder: Path) -> None:
    """Download and check into `folder`, going on with what an earlier try left."""
    for last in (False, True):
        with resumed(folder, manifest) as partial:
            went_on = journal_of(partial).is_file()
            (partial / MANIFEST).write_bytes(manifest)
            sizes = {name: file.size for name, file in read_manifest(partial).files.items()}
            hashes = _download(uri, sizes, partial, hashed=True)
            journal_of(partial).unlink(missing_ok=True)
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
    done = parts_there(folder)
    for name, size in sizes.items():
        path = inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.stat().st_size != size:
            done = {part for part in done if part[0] != name}
            with path.open("wb") as stream:
                stream.truncate(size)
    writing, hashes = threading.Lock(), PartHashes(folder, sizes if hashed else {}, done, s3.PART)
    with journal_of(folder).open("a") as journal, explained(uri):

        def part(job: tuple[str, int, int]) -> None:
            name, offset, length = job
            target = f"{key}/{name}" if key else name
            _read_to(folder / name, bucket, target, offset, length)
            with writing:
                journal.write(json.dumps([name, offset]) + "\n")
                journal.flush()
            hashes.arrived(name, offset)

        side_by_side(part, [job for job in _parts(sizes) if job[:2] not in done])
    return hashes.finished()


def _parts(sizes: dict[str, int]) -> Iterator[tuple[str, int, int]]:
    """(name, offset, length) that together cover every file."""
    for name, size in sizes.items():
        for offset in range(0, size, s3.PART):
            yield name, offset, min(s3.PART, size - offset)


def _read_to(path: Path, bucket: str, key: str, offset: int, length: int) -> None:
    """Bytes of one object from `offset` to the same place in a file; a read that breaks off goes on where it was."""
    arrived = 0

    def go_on() -> None:
        nonlocal arrived
        if arrived == length:
            return
        response = client().get_object(bucket, key, offset=offset + arrived, length=length - arrived)
        try:
            with path.open("r+b", buffering=0) as stream:
                stream.seek(offset + arrived)
                for block in response.stream(BLOCK):
                    stream.write(block)
                    arrived += len(block)
        finally:
            response.close()
            response.release_conn()

    retried(go_on, patient=True, progress=lambda: arrived)
    if arrived != length:
        raise UserError(f"s3://{bucket}/{key}: {arrived} bytes from {offset} where {length} are expected; it changed")


def inside(folder: Path, name: str) -> Path:
    """`folder/name`, where that is really inside `folder`; object names may be anything."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise UserError(f"{name!r}: an object's name that leads out of its folder; rename it in the bucket")
    return folder / name


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
