"""Lock a file between processes, by `filelock`. The operating system releases the lock when its holder ends."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""Errors of file systems that have no locks, such as some network file systems."""


@contextmanager
def file_lock(path: Path, *, wait: bool = True, note: str = "") -> Iterator[bool]:
    """Hold the lock on `path`, which is made and removed again; yields whether it is held.

    wait: False yields False at once where another process, or another lock of this one, holds it.
    note: text that the file has meanwhile, such as the number of the process; others read it with `lock_note`.
    On a file system without locks no process waits, and True is yielded. Raises OSError where the file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        if note:
            path.write_text(note)
        yield True
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever waits for the removed file tries again
        lock.release()


def lock_note(path: Path) -> str:
    """Return the note of whoever holds the lock; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
