"""Keep finished tasks and find them again: in the run folder itself, or in a cache that runs share.

The folder of a finished task holds `.task.json`, which is written last. It counts only while the contents of every
output have the digest recorded in it (sha256), so that a corrupted output is computed again.
"""

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.artifacts.manifest import content_digest, hash_folder, is_artifact, sha256_file, verify
from shared.system.errors import ArtifactError, UserError
from shared.system.file_copies import copy_file
from shared.system.user_folders import user_cache

FINISHED = ".task.json"
_DEFAULT_GB = 20.0
"""Size limit of the cache in 10^9 bytes."""


class FinishedOutput(BaseModel):
    """One output of a finished task."""

    model_config = ConfigDict(extra="forbid")
    path: str
    """Relative to the task's folder."""
    kind: str
    """Artifact kind such as ImageSet, else Kubeflow's type."""
    schema_title: str
    """Kubeflow's type, such as system.Dataset."""
    digest: str
    """Content digest of an artifact, sha256 of a plain file."""
    metadata: dict[str, Any] = {}


class FinishedTask(BaseModel):
    """The results of a task that succeeded."""

    model_config = ConfigDict(extra="forbid")
    key: str
    """Cache key; empty if the results must not be used again."""
    seconds: float
    outputs: dict[str, FinishedOutput] = {}
    values: dict[str, Any] = {}
    """Output parameters."""
    metrics: dict[str, float] = {}
    skipped: str = ""
    """Why the stage passed through without computing; empty if it computed."""
    remark: str = ""
    """One or two sentences on the outcome, from `Result.remark`."""

    def save(self, folder: Path) -> None:
        """Write `.task.json`: from now on the task counts as finished."""
        temporary = folder / f"{FINISHED}.partial"
        temporary.write_text(self.model_dump_json(indent=1) + "\n")
        temporary.replace(folder / FINISHED)


def digest_of(path: Path) -> str:
    """Compute the digest of an output from its contents. Raises ArtifactError if it is missing or corrupted."""
    if path.is_dir():
        return verify(path).digest if is_artifact(path) else content_digest(hash_folder(path))
    if not path.is_file():
        raise ArtifactError(f"{path}: missing")
    return sha256_file(path)


def read_finished(folder: Path, key: str) -> FinishedTask | None:
    """Return the finished task in `folder`; None if there is none with this key.

    Raises ArtifactError if there is one, but an output is missing or has changed.
    """
    try:
        finished = FinishedTask.model_validate_json((folder / FINISHED).read_text())
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
    if finished.key != key:
        return None
    for output in finished.outputs.values():
        if digest_of(folder / output.path) != output.digest:
            raise ArtifactError(f"{folder / output.path}: its contents have changed")
    return finished


class Cache:
    """Folders of finished tasks by key. Their files are copies: who edits a result in a run changes nothing else."""

    def __init__(self, root: Path, limit: float = _DEFAULT_GB * 1e9) -> None:
        """limit: maximum size after `trim`, in bytes."""
        self.root, self.limit = root / "tasks", limit

    @classmethod
    def from_environment(cls) -> "Cache":
        """Return the cache at CYTOLOOM_CACHE (default ~/.cache/cytoloom), limited to CYTOLOOM_CACHE_GB (default 20).

        Raises UserError if the limit is not a size.
        """
        root = Path(os.environ.get("CYTOLOOM_CACHE") or user_cache())
        return cls(root, _gigabytes(os.environ.get("CYTOLOOM_CACHE_GB")))

    def restore(self, key: str, folder: Path) -> FinishedTask | None:
        """Copy the finished task `key` to `folder` and return it; None if the cache does not have it.

        Raises ArtifactError if it is corrupted, and removes it.
        """
        entry = self._entry(key)
        try:
            finished = read_finished(entry, key)
        except ArtifactError:
            shutil.rmtree(entry, ignore_errors=True)
            raise
        if finished is not None:
            with contextlib.suppress(PermissionError):  # another user's
                os.utime(entry)  # `trim` removes the least recently used first
            _copy_tree(entry, folder)
        return finished

    def keep(self, key: str, folder: Path) -> None:
        """Add the finished task at `folder`, unless it alone exceeds the limit.

        Raises OSError if there is no space or no right to write.
        """
        if sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) > self.limit:
            return
        _copy_tree(folder, self._entry(key))

    def trim(self) -> int:
        """Remove the least recently used tasks until the rest is below the limit; return their number.

        A run that needs a removed task computes it again. Raises OSError if a task cannot be removed.
        """
        tasks = sorted((used, size, task) for task in self.root.glob("*/*") for used, size in _usage(task))
        excess, removed = sum(size for _, size, _ in tasks) - self.limit, 0
        for _, size, task in tasks:
            if excess <= 0:
                break
            with contextlib.suppress(FileNotFoundError):  # another run trims at the same time
                (task / FINISHED).unlink()  # first: without it, no run takes the rest for a finished task
                shutil.rmtree(task)
            excess, removed = excess - size, removed + 1
        return removed

    def _entry(self, key: str) -> Path:
        return self.root / key[:2] / key


def _gigabytes(given: str | None) -> float:
    """Parse CYTOLOOM_CACHE_GB into bytes."""
    try:
        size = float(given or _DEFAULT_GB)
    except ValueError:
        size = math.nan
    if not size >= 0:
        raise UserError(f"CYTOLOOM_CACHE_GB={given}: not a size; give a number of GB, such as 20")
    return size * 1e9


def _usage(task: Path) -> Iterator[tuple[float, int]]:
    """Yield the time of a cached task's last use (Unix time in s) and its bytes; nothing for an incomplete one."""
    with contextlib.suppress(OSError):
        if (task / FINISHED).is_file():
            yield task.stat().st_mtime, sum(file.lstat().st_size for file in task.rglob("*") if file.is_file())


def _copy_tree(source: Path, target: Path) -> None:
    """Replace `target` with a copy of the folder `source`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(source, partial, copy_function=copy_file, ignore=_temporary_files(source))
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _temporary_files(top: Path) -> Callable[[str, list[str]], list[str]]:
    """Return `ignore` of `copytree`: locks and unfinished files directly in a task's folder."""
    return lambda folder, names: [n for n in names if Path(folder) == top and n.startswith(".") and n != FINISHED]
