"""Fetch artifacts and plain objects from S3, verified by content; an interrupted download is continued.

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
from shared.store import transfer
from shared.store.connection import client
from shared.store.environment import split_uri
from shared.store.failures import translated_errors
from shared.store.incremental_sha256 import IncrementalSha256
from shared.store.objects import exists, find, listing
from shared.store.resumable_folders import arrived_parts, beside, journal_of, locked, resumed
from shared.store.retries import with_retries
from shared.system.errors import ArtifactError, UserError
from shared.system.log import log

_READ_BYTES = 2**20
"""Bytes taken from the network at a time."""


# --- artifacts ----------------------------------------------------------------------------------------------------


def fetch(uri: str, folder: Path, kind: type[Artifact] | None = None) -> None:
    """Download an artifact and verify it; `folder` appears only once every byte agrees with `artifact.json`.

    kind: kind that it must have, checked before anything large is fetched.
    """
    uri = uri.rstrip("/")
    manifest = find(f"{uri}/{MANIFEST}")
    if manifest is None:
        raise ArtifactError(f"{uri}: no {MANIFEST} there, so it is no finished artifact; run the stage that makes it")
    parse_manifest(manifest, uri, kind)
    cached = _cached_artifact(manifest)
    if cached is None:
        _fetch(uri, manifest, folder)
        return
    try:
        with locked(cached):
            if _is_whole(cached):
                log.info("%s: from the cache", uri)
            else:
                _fetch(uri, manifest, cached)
            with beside(folder) as partial:
                shutil.copytree(cached, partial, copy_function=_link, dirs_exist_ok=True)
    except OSError as error:
        _warn_of_cache(error)
        _fetch(uri, manifest, folder)


def _fetch(uri: str, manifest: bytes, folder: Path) -> None:
    """Download and verify into `folder`, continuing an interrupted download; a damaged one is begun anew, once."""
    for is_last in (False, True):
        with resumed(folder, manifest) as partial:
            continued = journal_of(partial).is_file()
            (partial / MANIFEST).write_bytes(manifest)
            sizes = {name: file.size for name, file in read_manifest(partial).files.items()}
            hashes = _download(uri, sizes, partial, hashed=True)
            journal_of(partial).unlink(missing_ok=True)
            try:
                verify(partial, hashes=hashes)
                return
            except ArtifactError as error:
                shutil.rmtree(partial)
                if is_last or not continued:
                    raise ArtifactError(str(error).replace(str(partial), uri)) from error
                log.info("%s: an interrupted download is damaged; fetching again", uri)


def _cached_artifact(manifest: bytes) -> Path | None:
    """Return where `CYTOLOOM_CACHE` keeps the artifact with this manifest; None without a cache."""
    root = os.environ.get("CYTOLOOM_CACHE")
    return Path(root) / "artifacts" / hashlib.sha256(manifest).hexdigest() if root else None


def _is_whole(cached: Path) -> bool:
    """Say whether the cache holds the artifact; a damaged one is removed."""
    if not cached.is_dir():
        return False
    try:
        verify(cached)
        return True
    except ArtifactError as error:
        log.info("the cached copy is damaged; fetching again (%s)", error)
        shutil.rmtree(cached)
        return False


def _link(source: str, target: str) -> None:
    """Hard-link where the file system allows, else copy: fetched artifacts are never written to."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _warn_of_cache(error: OSError) -> None:
    log.warning("CYTOLOOM_CACHE: %s; going on without the cache", error)


# --- plain objects ------------------------------------------------------------------------------------------------


def fetch_prefix(uri: str, folder: Path) -> None:
    """Download every object below `uri`, or the one object `uri`, as plain files into `folder`."""
    _fetch_plain(uri, _nonempty_listing(uri), folder)


@contextmanager
def borrowed_prefix(uri: str) -> Iterator[Path]:
    """Yield a folder with the files of `fetch_prefix`; it is removed when the block ends.

    It is below `CYTOLOOM_CACHE` where that is set: after a process that was killed, the next one continues there.
    """
    found = _nonempty_listing(uri)
    with ExitStack() as stack:
        folder = _place_in_cache(uri, found, stack)
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="cytoloom-source-", dir=os.environ.get("CYTOLOOM_TMP"))
            folder = Path(stack.enter_context(temporary)) / "source"
        if not folder.is_dir():
            _fetch_plain(uri, found, folder)
        yield folder


def _place_in_cache(uri: str, found: list[tuple[str, int, str]], stack: ExitStack) -> Path | None:
    """Return a place for these objects, locked until the stack is unwound; None without a cache, or while in use."""
    root = os.environ.get("CYTOLOOM_CACHE")
    if not root:
        return None
    place = Path(root) / "sources" / hashlib.sha256(json.dumps([uri, found]).encode()).hexdigest()[:32]
    try:
        if not stack.enter_context(locked(place, wait=False)):
            return None
    except OSError as error:
        _warn_of_cache(error)
        return None
    stack.callback(shutil.rmtree, place, ignore_errors=True)
    return place


def _nonempty_listing(uri: str) -> list[tuple[str, int, str]]:
    if found := listing(uri):
        return found
    raise UserError(f"{uri}: no object there; check the name, or upload the images first")


def _fetch_plain(uri: str, found: list[tuple[str, int, str]], folder: Path) -> None:
    """Download the listed objects."""
    if len(found) == 1 and not uri.endswith("/") and exists(uri):
        uri = uri.rpartition("/")[0]
    with resumed(folder, json.dumps([uri, found]).encode()) as partial:
        _download(uri.rstrip("/"), {name: size for name, size, _ in found}, partial)


# --- parts --------------------------------------------------------------------------------------------------------


def _download(uri: str, sizes: dict[str, int], folder: Path, hashed: bool = False) -> dict[str, str]:
    """Fetch `uri/NAME` for every name in parts, in parallel, except the parts in the journal.

    Returns name -> sha256 of each whole file where `hashed`.
    """
    bucket, key = split_uri(uri)
    arrived = _allocate(folder, sizes)
    hashes = IncrementalSha256(folder, sizes if hashed else {}, arrived, transfer.PART_BYTES)
    writing = threading.Lock()
    with journal_of(folder).open("a") as journal, translated_errors(uri):

        def fetch_part(part: tuple[str, int, int]) -> None:
            name, offset, length = part
            _read_to(folder / name, bucket, f"{key}/{name}" if key else name, offset, length)
            with writing:
                journal.write(json.dumps([name, offset]) + "\n")
                journal.flush()
            hashes.add_part(name, offset)

        transfer.run_parallel(fetch_part, [part for part in _parts(sizes) if part[:2] not in arrived])
    return hashes.hexdigests()


def _allocate(folder: Path, sizes: dict[str, int]) -> set[tuple[str, int]]:
    """Make every file in its full size; returns (name, offset) of the parts that have arrived already."""
    arrived = arrived_parts(folder)
    for name, size in sizes.items():
        path = inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.stat().st_size != size:
            arrived = {part for part in arrived if part[0] != name}
            with path.open("wb") as stream:
                stream.truncate(size)
    return arrived


def _parts(sizes: dict[str, int]) -> Iterator[tuple[str, int, int]]:
    """Yield (name, offset, length) that together cover every file."""
    for name, size in sizes.items():
        for offset in range(0, size, transfer.PART_BYTES):
            yield name, offset, min(transfer.PART_BYTES, size - offset)


def _read_to(path: Path, bucket: str, key: str, offset: int, length: int) -> None:
    """Read bytes of an object from `offset` to the same place in a file; an interrupted read is continued."""
    arrived = 0

    def read_rest() -> None:
        nonlocal arrived
        if arrived == length:
            return
        response = client().get_object(bucket, key, offset=offset + arrived, length=length - arrived)
        try:
            with path.open("r+b", buffering=0) as stream:
                stream.seek(offset + arrived)
                for data in response.stream(_READ_BYTES):
                    stream.write(data)
                    arrived += len(data)
        finally:
            response.close()
            response.release_conn()

    with_retries(read_rest, wait_for_server=True, progress=lambda: arrived)
    if arrived != length:
        raise UserError(
            f"s3://{bucket}/{key}: {arrived} bytes from {offset} where {length} are expected, so it has changed; "
            "fetch it again"
        )


def inside(folder: Path, name: str) -> Path:
    """Return `folder/name`. Raises UserError where that leads out of `folder`; object names may be anything."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise UserError(f"{name!r}: an object's name that leads out of its folder; rename it in the bucket")
    return folder / name
