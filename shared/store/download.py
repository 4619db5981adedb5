"""Fetch artifacts and plain objects from S3, verified by content; an interrupted download is continued.

`CYTOLOOM_CACHE`, a folder, keeps what was fetched by its digest; several processes may share it.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from shared.artifacts.kinds import Artifact
from shared.artifacts.manifest import MANIFEST, parse_manifest, read_manifest, verify
from shared.store import transfer
from shared.store.environment import split_uri
from shared.store.failures import foreign_answer, is_web_page, translated_errors
from shared.store.files.incremental_sha256 import IncrementalSha256
from shared.store.files.names import first_problem, refuse_one_file
from shared.store.files.resumable_folders import arrived_parts, beside, journal_of, locked, resumed
from shared.store.object_range import read_range
from shared.store.objects import exists, find, listing
from shared.system.errors import ArtifactError, UserError
from shared.system.log import log

_UNFIT = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EFBIG}
"""Errors of a file system that cannot hold a file of this name or size."""


# --- artifacts ----------------------------------------------------------------------------------------------------


def fetch(uri: str, folder: Path, kind: type[Artifact] | None = None) -> None:
    """Download an artifact and verify it; `folder` appears only once every byte agrees with `artifact.json`.

    kind: kind that it must have, checked before anything large is fetched.
    """
    uri = uri.rstrip("/")
    manifest = find(f"{uri}/{MANIFEST}")
    if manifest is None:
        raise ArtifactError(f"{uri}: no {MANIFEST} there, so it is no finished artifact; run the stage that makes it")
    _check_manifest(manifest, uri, kind)
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


def _check_manifest(manifest: bytes, uri: str, kind: type[Artifact] | None) -> None:
    """Raise UserError where it is no manifest, or lists what no folder can hold."""
    if is_web_page(manifest):
        raise foreign_answer("a web page (HTML)")
    files = parse_manifest(manifest, uri, kind).files
    problem = first_problem([*files, MANIFEST]) or next(
        (f"{name!r} has {file.size} bytes" for name, file in files.items() if file.size < 0), ""
    )
    if problem:
        raise ArtifactError(f"{uri}/{MANIFEST}: of the files that it lists, {problem}; make the artifact again")


def _fetch(uri: str, manifest: bytes, folder: Path) -> None:
    """Download and verify into `folder`, continuing an interrupted download; a damaged one is begun anew, once."""
    for is_last in (False, True):
        with resumed(folder, manifest) as partial:
            continued = journal_of(partial).is_file()
            (partial / MANIFEST).write_bytes(manifest)
            sizes = {name: file.size for name, file in read_manifest(partial).files.items()}
            hashes = _download(f"{uri}/", sizes, partial, hashed=True)
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
    is_object = len(found) == 1 and not uri.endswith("/") and exists(uri)
    below = uri.rpartition("/")[0] + "/" if is_object else uri.rstrip("/") + "/"
    with resumed(folder, json.dumps([below, found]).encode()) as partial:
        _download(below, {name: size for name, size, _ in found}, partial)


# --- parts --------------------------------------------------------------------------------------------------------


def _download(below: str, sizes: dict[str, int], folder: Path, hashed: bool = False) -> dict[str, str]:
    """Fetch the object `below` + name for every name in parts, in parallel, except the parts in the journal.

    Returns name -> sha256 of each whole file where `hashed`.
    """
    bucket, key = split_uri(below)
    arrived = _allocate(folder, sizes)
    hashes = IncrementalSha256(folder, sizes if hashed else {}, arrived, transfer.PART_BYTES)
    writing = threading.Lock()
    with journal_of(folder).open("a") as journal:

        def fetch_part(part: tuple[str, int, int]) -> None:
            name, offset, length = part
            with translated_errors(f"{below}{name}"):
                read_range(folder / name, bucket, f"{key}{name}", offset, length, sizes[name])
            with writing:
                journal.write(json.dumps([name, offset]) + "\n")
                journal.flush()
            hashes.add_part(name, offset)

        transfer.run_parallel(fetch_part, [part for part in _parts(sizes) if part[:2] not in arrived])
    return hashes.hexdigests()


def _allocate(folder: Path, sizes: dict[str, int]) -> set[tuple[str, int]]:
    """Make every file in its full size; returns (name, offset) of the parts that have arrived already."""
    arrived, new = arrived_parts(folder), set()
    for name, size in sizes.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_file() or path.stat().st_size != size:
                new.add(name)
                with path.open("wb") as stream:
                    stream.truncate(size)
        except (OSError, OverflowError) as error:
            if getattr(error, "errno", errno.EFBIG) not in _UNFIT:
                raise
            problem = f"{name[:100]!r} cannot be a file in {folder.parent}"
            raise UserError(f"{problem}: {getattr(error, 'strerror', error)}; use another folder") from error
    refuse_one_file({name: folder / name for name in sizes})
    return {part for part in arrived if part[0] not in new}


def _parts(sizes: dict[str, int]) -> Iterator[tuple[str, int, int]]:
    """Yield (name, offset, length) that together cover every file."""
    for name, size in sizes.items():
        for offset in range(0, size, transfer.PART_BYTES):
            yield name, offset, min(transfer.PART_BYTES, size - offset)
