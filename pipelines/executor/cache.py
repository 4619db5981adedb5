"""Finished tasks and where they are found again: in the run folder itself, or in a cache that runs share.

A finished task's folder holds a receipt, `.task.json`, which is written last. A receipt counts only while every file
of every output agrees with it (sha256), so a changed byte is never handed on.
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

RECEIPT = ".task.json"
DEFAULT = Path.home() / ".cache/cytoloom"
GB = 20.0
"""That the cache may hold, 10^9 bytes each."""


class Made(BaseModel):
    """One output of a finished task."""

    model_config = ConfigDict(extra="forbid")
    path: str
    """Relative to the task's folder."""
    kind: str
    """Artifact type such as ImageSet, or Kubeflow's."""
    schema_title: str
    """Kubeflow's name of the type, such as system.Dataset."""
    digest: str
    """Content digest of an artifact, sha256 of a plain file."""
    metadata: dict[str, Any] = {}


class Receipt(BaseModel):
    """What a finished task left behind."""

    model_config = ConfigDict(extra="forbid")
    key: str
    seconds: float
    outputs: dict[str, Made] = {}
    values: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    skipped: str = ""

    def save(self, folder: Path) -> None:
        """Write it: from now on the task counts as finished."""
        temporary = folder / f"{RECEIPT}.partial"
        temporary.write_text(self.model_dump_json(indent=1) + "\n")
        temporary.replace(folder / RECEIPT)


def digest_of(path: Path) -> str:
    """Digest of an output, computed from its contents. Raises ArtifactError where it is missing or damaged."""
    if path.is_dir():
        return verify(path).digest if is_artifact(path) else content_digest(hash_folder(path))
    if not path.is_file():
        raise ArtifactError(f"{path}: missing")
    return sha256_file(path)


def settled(folder: Path, key: str) -> Receipt | None:
    """The receipt in `folder`, where it is one for `key`.

    Raises ArtifactError where it is, but an output is missing or has changed.
    """
    try:
        receipt = Receipt.model_validate_json((folder / RECEIPT).read_text())
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
    if receipt.key != key:
        return None
    for made in receipt.outputs.values():
        if digest_of(folder / made.path) != made.digest:
            raise ArtifactError(f"{folder / made.path}: its contents have changed")
    return receipt


class Cache:
    """Folders of finished tasks by key. Files are hard links where the file system allows it, else copies."""

    def __init__(self, root: Path, limit: float = GB * 1e9) -> None:
        """limit: bytes that `trim` leaves, at most."""
        self.root, self.limit = root / "tasks", limit

    @classmethod
    def from_environment(cls) -> "Cache":
        """The cache at `CYTOLOOM_CACHE`, else in the home folder, of `CYTOLOOM_CACHE_GB`, else 20.

        Raises UserError where that is no size.
        """
        return cls(Path(os.environ.get("CYTOLOOM_CACHE") or DEFAULT), _gigabytes(os.environ.get("CYTOLOOM_CACHE_GB")))

    def restore(self, key: str, folder: Path) -> Receipt | None:
        """Put the finished task `key` at `folder` and return its receipt; None where there is none.

        Raises ArtifactError where there is one, but damaged; it is removed then.
        """
        entry = self._entry(key)
        try:
            receipt = settled(entry, key)
        except ArtifactError:
            shutil.rmtree(entry, ignore_errors=True)
            raise
        if receipt is not None:
            with contextlib.suppress(PermissionError):  # another user's
                os.utime(entry)  # it was of use: `trim` takes others first
            _link_tree(entry, folder)
        return receipt

    def keep(self, key: str, folder: Path) -> None:
        """Add the finished task at `folder`. Raises OSError where there is no room or no right to write."""
        _link_tree(folder, self._entry(key))

    def trim(self) -> int:
        """Remove the tasks that were of use longest ago until the rest is below the limit. Returns how many.

        A run that wants one of them just then computes it anew. Raises OSError where one cannot be removed.
        """
        tasks = sorted((used, size, task) for task in self.root.glob("*/*") for used, size in _uses(task))
        excess, removed = sum(size for _, size, _ in tasks) - self.limit, 0
        for _, size, task in tasks:
            if excess <= 0:
                break
            with contextlib.suppress(FileNotFoundError):  # another run trims as well
                (task / RECEIPT).unlink()  # first: without it, nobody takes the rest for finished
                shutil.rmtree(task)
            excess, removed = excess - size, removed + 1
        return removed

    def _entry(self, key: str) -> Path:
        return self.root / key[:2] / key


def _gigabytes(given: str | None) -> float:
    try:
        size = float(given or GB)
    except ValueError:
        size = math.nan
    if not size >= 0:
        raise UserError(f"CYTOLOOM_CACHE_GB={given}: not a size in GB, such as 20")
    return size * 1e9


def _uses(task: Path) -> Iterator[tuple[float, int]]:
    """When a kept task was last of use (s since 1970) and its bytes; nothing where it is not whole."""
    with contextlib.suppress(OSError):
        if (task / RECEIPT).is_file():
            yield task.stat().st_mtime, sum(file.lstat().st_size for file in task.rglob("*") if file.is_file())


def _link_tree(source: Path, target: Path) -> None:
    """Make `target` a copy of the folder `source`, by hard links where possible; what stood there is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(source, partial, copy_function=_link, ignore=_hidden(source))
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _hidden(top: Path) -> Callable[[str, list[str]], list[str]]:
    """For `copytree`: locks and unfinished files at the top of a task's folder stay behind."""
    return lambda folder, names: [n for n in names if Path(folder) == top and n.startswith(".") and n != RECEIPT]


def _link(source: str, target: str) -> None:
    if Path(source).name != "log.txt":  # logs are written to, so they are no links
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)
