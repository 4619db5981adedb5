"""Make folders that appear as a whole, and keep what an interrupted download has fetched for the next one."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.system.locks import file_lock


@contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `folder` if the block succeeds, and is removed if not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        yield partial
        replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def resumed(folder: Path, identity: bytes) -> Iterator[Path]:
    """Yield a folder for the contents of this identity that replaces `folder`, if it still exists after the block.

    After an error it stays, hidden, and the next call yields it as it was left.
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
    """Return the file, beside the folder, that lists name and offset of each part that has arrived, a line each."""
    return partial.with_name(f"{partial.name}.parts")


def arrived_parts(partial: Path) -> set[tuple[str, int]]:
    """Read the journal of an earlier download; an incomplete line ends it."""
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
    """Let one process at a time work on `place`; yields whether this is the one, see `file_lock`."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(place.parent / f".{place.name.lstrip('.')}.lock", wait=wait) as held:
        yield held
