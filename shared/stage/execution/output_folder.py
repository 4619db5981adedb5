"""Write output folders whole or not at all: beside their place, and moved there when all of them are sealed.

A stage that writes `RUN/labels` works in `RUN/.labels.partial` and holds a lock on `RUN/.labels.lock`. The operating
system releases the lock when the process ends, however it ends. The holder of the lock may remove what a killed run
left behind. A process id in the file would not do: containers number their processes on their own.
"""

import contextlib
import shutil
from collections.abc import Collection
from pathlib import Path

from shared.artifacts.manifest import MANIFEST, is_artifact
from shared.system.errors import UserError
from shared.system.locks import file_lock

SCRATCH_PREFIX = ".cytoloom-"
"""Beginning of the names of folders for temporary files."""
CHECKPOINTS_FOLDER = ".checkpoints"
"""Folder for checkpoints beside the outputs."""


class OutputFolder:
    """One output folder in this file system, from the first byte to its delivery."""

    def __init__(self, name: str, target: Path, overwrite: bool) -> None:
        """name: of the output port, for messages; target: the folder; overwrite: replace a finished artifact."""
        self.name, self.target, self.overwrite = name, target.absolute(), overwrite
        self._is_mount = self.target.is_mount()  # which cannot be renamed over: its files are moved one by one
        self.parent = self.target if self._is_mount else self.target.parent
        """Folder for the partial output, the lock and the checkpoints."""
        self.partial = self.parent / f".{self.target.name}.partial"
        """Folder that the stage writes in."""
        self._old = self.parent / f".{self.target.name}.old"
        self._lock_path = self.parent / f".{self.target.name}.lock"
        self._lock = contextlib.ExitStack()
        self._held = self._delivered = False

    def open(self) -> None:
        """Lock the place, remove what a killed run left, and make the empty folder to write in.

        Raises UserError where another process writes the same output, or where something else stands there.
        """
        self.parent.mkdir(parents=True, exist_ok=True)
        self._held = self._lock.enter_context(file_lock(self._lock_path, wait=False))
        if not self._held:
            raise UserError(
                f"--{self.name}: another process is writing {self.target}; wait until it ends, or give another path"
            )
        self._recover()
        self._refuse()
        self.partial.mkdir()

    def _recover(self) -> None:
        _remove(self.partial)
        if self._old.exists():  # killed in the middle of a replacement
            if self.target.exists():
                _remove(self._old)
            else:
                self._old.rename(self.target)

    def _refuse(self) -> None:
        """Raise UserError where the target holds anything that must not be replaced."""
        if self.target.exists() and not self.target.is_dir():
            raise UserError(f"--{self.name}: {self.target} is a file; give a folder that does not exist yet")
        if is_artifact(self.target):
            if not self.overwrite:
                raise UserError(
                    f"--{self.name}: {self.target} holds a finished artifact; give another path, or --overwrite"
                )
        elif self.target.is_dir() and any(not self._is_own(item) for item in self.target.iterdir()):
            raise UserError(f"--{self.name}: {self.target} is not empty and no artifact; give another path")

    def _is_own(self, item: Path) -> bool:
        """Say whether this is the lock, a folder for temporary files, or the checkpoints: a mount point holds them."""
        return item == self._lock_path or item.name == CHECKPOINTS_FOLDER or item.name.startswith(SCRATCH_PREFIX)

    def deliver(self) -> None:
        """Move the sealed folder into place; `undo` takes it back until `close`."""
        if self._is_mount:
            _remove_contents(self.target, keep={self.partial, self._lock_path})
            for item in sorted(self.partial.iterdir(), key=lambda path: path.name == MANIFEST):
                item.rename(self.target / item.name)
            return
        if self.target.is_dir():
            self.target.rename(self._old)
        self.partial.rename(self.target)
        self._delivered = True

    def undo(self) -> None:
        """Restore what was there before `deliver`."""
        if self._delivered:
            self.target.rename(self.partial)
            self._delivered = False
        if self._old.exists() and not self.target.exists():
            self._old.rename(self.target)

    def close(self) -> None:
        """Remove everything but the output itself, whether it was delivered or not, and release the lock."""
        if self._held:
            _remove(self.partial)
            _remove(self._old)
            self._held = False
        self._lock.close()


def deliver_all(folders: Collection[OutputFolder]) -> None:
    """Move all outputs into place, or none: on an error those already moved are taken back."""
    try:
        for folder in folders:
            folder.deliver()
    except BaseException:
        for folder in folders:
            folder.undo()
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_contents(folder: Path, keep: set[Path]) -> None:
    for item in folder.iterdir():
        if item not in keep:
            _remove(item)
