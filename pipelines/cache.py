"""Finished tasks and where they are found again: in the run folder itself, or in a cache that runs share.

A finished task's folder holds a receipt, `.task.json`, which is written last. A receipt counts only while every file
of every output agrees with it (sha256), so a changed byte is never handed on.
"""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.artifacts import content_digest, hash_folder, is_artifact, sha256_file, verify
from shared.errors import ArtifactError

RECEIPT = ".task.json"
DEFAULT = Path.home() / ".cache/cytoloom"


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

    def __init__(self, root: Path) -> None:
        self.root = root / "tasks"

    @classmethod
    def from_environment(cls) -> "Cache":
        """The cache at `CYTOLOOM_CACHE`, else in the home folder."""
        return cls(Path(os.environ.get("CYTOLOOM_CACHE") or DEFAULT))

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
            _link_tree(entry, folder)
        return receipt

    def keep(self, key: str, folder: Path) -> None:
        """Add the finished task at `folder`. Raises OSError where there is no room or no right to write."""
        _link_tree(folder, self._entry(key))

    def _entry(self, key: str) -> Path:
        return self.root / key[:2] / key


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
