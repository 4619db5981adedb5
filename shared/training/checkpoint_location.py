"""Set where the running task keeps its checkpoints: outside artifacts, keyed by the task's cache key.

`CYTOLOOM_CHECKPOINTS` is a folder (on a volume that outlives the pod) or `s3://bucket/prefix`. In the second case the
checkpoint is written to a local folder and copied to and from the store, because a retried pod starts with an empty
disk.
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
    """Return the existing folder for the running task's checkpoints; None where `run` is called without a runner."""
    return _folder.get()


def location() -> tuple[Path | None, str]:
    """Return the arguments of `set_location`, for another process of the same task."""
    return _folder.get(), _remote.get()


def set_location(path: Path | None, remote: str = "") -> None:
    """Set the location, which the runner does before it calls `run`.

    path: local folder, None for no checkpoints; remote: uri of the folder in the store, where there is one. Raises
    OSError where the folder cannot be created or written to.
    """
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    _folder.set(path)
    _remote.set(remote.rstrip("/"))


def download() -> None:
    """Copy the checkpoint from the store, where it is kept there, before it is read."""
    path, uri = _folder.get(), _uri()
    if path is not None and uri:
        from shared import store

        if store.exists(uri):
            (path / FILE).write_bytes(store.get(uri))


def upload() -> None:
    """Copy the checkpoint to the store, where it is kept there, after it is saved.

    If the store does not answer, log a warning and go on: what is at risk is the steps since the last copy.
    """
    path, uri = _folder.get(), _uri()
    if path is not None and uri:
        from shared import store

        try:
            store.put(uri, (path / FILE).read_bytes())
        except UserError as error:
            log.warning("the checkpoint was not copied: %s", error)


def remove() -> None:
    """Remove the checkpoint from the folder and from the store, after success."""
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
