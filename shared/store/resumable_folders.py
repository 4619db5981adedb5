"""Folders that appear as a whole, and what a download that was broken off leaves for the next one."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` if all goes well, and vanishes if not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        yield partial
        replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def resumed(folder: Path, identity: bytes) -> Iterator[Path]:
    """A folder for contents of this identity that takes the place of `folder`, where it still is there at the end.

    After an error it stays, hidden, and the next call finds it as it was left.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.partial-{hashlib.sha256(identity).hexdigest()[:12]}"
    with locked(partial):
        partial.mkdir(exist_ok=True)
        yield partial
        journal_of(partial).unlink(missing_ok=True)
        if partial.is_dir():
            replace(partial, folder)


def replace(partial: Path, folder: Path) -> None:
    """Let `partial` take the place of `folder`."""
    if folder.exists():
        shutil.rmtree(folder)
    partial.replace(folder)


def journal_of(partial: Path) -> Path:
    """Names and offsets of the parts that have arrived, a line each; beside the folder."""
    return partial.with_name(f"{partial.name}.parts")


def parts_there(partial: Path) -> set[tuple[str, int]]:
    """What the journal of an earlier try says; a line that was broken off ends it."""
    done: set[tuple[str, int]] = set()
    if journal_of(partial).is_file():
        for line in journal_of(partial).read_text().splitlines():
            try:
                name, offset = json.loads(line)
            except ValueError:
                break
            done.add((name, offset))
    return done


@contextmanager
def locked(place: Path, wait: bool = True) -> Iterator[bool]:
    """One process at a time works on `place`; the others wait. Where the file system has no locks, none does.

    wait: else False is what the others get, at once.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    path = place.parent / f".{place.name.lstrip('.')}.lock"
    while True:
        lock = path.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            yield False
            return
        except OSError:
            break
        with suppress(FileNotFoundError):  # else the last holder removed it meanwhile: once more
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                break
        lock.close()
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        lock.close()
