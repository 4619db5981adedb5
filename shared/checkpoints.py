"""Where the running task keeps its checkpoints: outside artifacts, keyed by the task's cache key.

`CYTOLOOM_CHECKPOINTS` is a folder (a volume that outlives the pod) or an `s3://bucket/prefix`. In the second case
they are written to a local folder and copied from and to the store, since a retried pod starts with an empty disk.
"""

from contextvars import ContextVar
from pathlib import Path

FILE = "checkpoint.pt"
_folder: ContextVar[Path | None] = ContextVar("checkpoint_folder", default=None)
_remote: ContextVar[str] = ContextVar("checkpoint_remote", default="")


def folder() -> Path | None:
    """Folder for the checkpoints of the task that runs, existing; None where `run` was called without a runner."""
    return _folder.get()


def use(path: Path | None, remote: str = "") -> None:
    """Set by the runner before `run` is called.

    remote: uri that `path` is copied to after each save; what it holds already is brought here first.
    """
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
    _folder.set(path)
    _remote.set(remote.rstrip("/"))
    if path is not None and remote:
        from shared import store

        if store.exists(f"{_remote.get()}/{FILE}"):
            (path / FILE).write_bytes(store.get(f"{_remote.get()}/{FILE}"))


def publish() -> None:
    """Called after each save: copies the checkpoint to the store, where that is its home."""
    path, remote = _folder.get(), _remote.get()
    if path is not None and remote:
        from shared import store

        store.put(f"{remote}/{FILE}", (path / FILE).read_bytes())
