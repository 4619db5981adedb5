"""Where the running task keeps its checkpoints: outside artifacts, keyed by the task's cache key."""

from contextvars import ContextVar
from pathlib import Path

_folder: ContextVar[Path | None] = ContextVar("checkpoint_folder", default=None)


def folder() -> Path | None:
    """Folder for the checkpoints of the task that runs, existing; None where `run` was called without a runner."""
    return _folder.get()


def use(path: Path | None) -> None:
    """Set by the runner before `run` is called."""
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
    _folder.set(path)
