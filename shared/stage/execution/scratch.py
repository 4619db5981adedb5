"""Folders for temporary files, locked while in use: the next stage removes what a killed one left."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from shared.stage.execution.output_folder import SCRATCH_PREFIX
from shared.system.log import log

_MIN_AGE = 60.0
"""Seconds after which a folder is certainly locked if it is in use."""


@contextlib.contextmanager
def scratch_folder(root: str | None) -> Iterator[Path]:
    """Yield a new folder below `root` (None: the system's folder for temporary files), and remove it at the end.

    Folders there whose process has ended, however it ended, are removed first.
    """
    _sweep(Path(root or tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=root) as name:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _lock(descriptor)
            yield Path(name)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open folder until it is closed; False where another process holds it, or where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def _sweep(root: Path) -> None:
    """Remove this user's folders that are old enough to be locked, and are not."""
    for folder in root.glob(f"{SCRATCH_PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                status = os.fstat(descriptor)
                is_left = status.st_uid == os.getuid() and time.time() - status.st_ctime > _MIN_AGE
                if is_left and _lock(descriptor):
                    log.info("removing %s, left by a process that was killed", folder)
                    shutil.rmtree(folder)
            finally:
                os.close(descriptor)
