"""Where the running task keeps its checkpoints: outside artifacts, keyed by the task's cache key.

`CYTOLOOM_CHECKPOINTS` is a folder (a volume that outlives the pod) or an `s3://bucket/prefix`. In the second case
they are written to a local folder and copied from and to the store, since a retried pod starts with an empty disk.
"""

import shutil
import tempfile
from contextvars import ContextVar
from pathlib import Path

from shared.system.errors import UserError
from shared.system.log import log

FILE = "checkpoint.pt"
_folder: ContextVar[Path | None] = ContextVar("checkpoint_folder", default=None)
_remote: ContextVar[str] = ContextVar("checkpoint_remote", default="")


def folder() -> Path | None:
    """Folder for the checkpoints of the task that runs, existing; None where `run` was called without a runner."""
    return _folder.get()


def place() -> tuple[Path | None, str]:
    """What `use` was called with, for a process that works at the same task."""
    return _folder.get(), _remote.get()


def use(path: Path | None, remote: str = "") -> None:
    """Set by the runner before `run` is called. remote: uri below which the checkpoint lives, where that is a store.

    Raises OSError where the folder cannot be made or written to.
    """
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    _folder.set(path)
    _remote.set(remote.rstrip("/"))


def bring() -> None:
    """Called before a checkpoint is read: copies it here from the store, where that is its home."""
    path, uri = _folder.get(), _uri()
    if path is not None and uri:
        from shared import store

        if store.exists(uri):
            (path / FILE).write_bytes(store.get(uri))


def publish() -> None:
    """Called after each save: copies the checkpoint to the store, where that is its home.

    A store that does not answer is reported and costs no more than the steps since the last copy.
    """
    path, uri = _folder.get(), _uri()
    if path is not None and uri:
        from shared import store

        try:
            store.put(uri, (path / FILE).read_bytes())
        except UserError as error:
            log.warning("the checkpoint was not copied: %s", error)


def remove() -> None:
    """Called after success: removes the checkpoint from the folder and from the store."""
    path, uri = _folder.get(), _uri()
    if path is not None and uri and (path / FILE).exists():
        from shared import store

        try:
            store.remove(uri)
        except UserError as error:
            log.warning("the checkpoint was not removed: %s", error)
    if path is not None:
        shutil.rmtree(path, ignore_errors=True)


def _uri() -> str:
    return f"{_remote.get()}/{FILE}" if _remote.get() else ""
