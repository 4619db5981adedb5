"""Outputs appear whole or not at all: written beside their place, moved there when all of them are sealed.

A stage that writes `RUN/labels` works in `RUN/.labels.partial`, holding a lock on `RUN/.labels.lock` that the
operating system lets go of when the process ends, however it ends. Whoever holds the lock may clear what a killed
run left behind; process ids would not tell, as containers count their own.
"""

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import IO

from shared.artifacts.manifest import MANIFEST, is_artifact
from shared.system.errors import UserError

SCRATCH = ".cytoloom-"
"""How names of folders for temporary files begin."""
CHECKPOINTS = ".checkpoints"
"""Where checkpoints are kept beside the outputs."""


class Output:
    """One output folder in this file system, from the first byte to its delivery."""

    def __init__(self, name: str, target: Path, overwrite: bool) -> None:
        self.name, self.target, self.overwrite = name, target.absolute(), overwrite
        inside = self.target.is_mount()  # a mount point cannot be renamed over: move file by file instead
        self.folder = self.target if inside else self.target.parent
        self.partial = self.folder / f".{self.target.name}.partial"
        self._old = self.folder / f".{self.target.name}.old"
        self._lock_path = self.folder / f".{self.target.name}.lock"
        self._inside = inside
        self._lock: IO[bytes] | None = None
        self._delivered = False

    def open(self) -> None:
        """Lock the place, clear what a killed run left, and make the empty folder to write in.

        Raises UserError where another process writes the same output, or where a finished one is in the way.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        self._recover()
        self._refuse()
        self.partial.mkdir()

    def _take_lock(self) -> None:
        while self._lock is None:
            lock = self._lock_path.open("ab")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.close()
                raise UserError(
                    f"--{self.name}: another process is writing {self.target} at this moment; "
                    "wait for it, or give another path"
                ) from error
            except OSError:  # a file system without locks: go on without
                self._lock = lock
                return
            with contextlib.suppress(FileNotFoundError):  # else the last holder removed it meanwhile: once more
                if os.path.samestat(os.fstat(lock.fileno()), self._lock_path.stat()):
                    self._lock = lock
                    return
            lock.close()

    def _recover(self) -> None:
        _remove(self.partial)
        if self._old.exists():  # killed in the middle of a replacement
            if self.target.exists():
                _remove(self._old)
            else:
                self._old.rename(self.target)

    def _passing(self, item: Path) -> bool:
        """Whether this is the lock, or, of an output that is a mount point, what had no other place to be."""
        return item == self._lock_path or item.name == CHECKPOINTS or item.name.startswith(SCRATCH)

    def _refuse(self) -> None:
        if self.target.exists() and not self.target.is_dir():
            raise UserError(f"--{self.name}: {self.target} is a file; give a folder that does not exist yet")
        if is_artifact(self.target):
            if not self.overwrite:
                raise UserError(
                    f"--{self.name}: {self.target} holds a finished artifact; give another path, or --overwrite"
                )
        elif self.target.is_dir() and any(not self._passing(item) for item in self.target.iterdir()):
            raise UserError(f"--{self.name}: {self.target} is not empty and no artifact; give another path")

    def deliver(self) -> None:
        """Move the sealed folder into place; `undo` takes it back until `close`."""
        if self._inside:
            _remove_contents(self.target, keep={self.partial, self._lock_path})
            for item in sorted(self.partial.iterdir(), key=lambda path: path.name == MANIFEST):
                item.rename(self.target / item.name)
            return
        if self.target.is_dir():
            self.target.rename(self._old)
        self.partial.rename(self.target)
        self._delivered = True

    def undo(self) -> None:
        """Put back what was there before `deliver`."""
        if self._delivered:
            self.target.rename(self.partial)
            self._delivered = False
        if self._old.exists() and not self.target.exists():
            self._old.rename(self.target)

    def close(self) -> None:
        """Remove everything but the output itself, whether it was delivered or not, and let the lock go."""
        if self._lock is None:
            return
        _remove(self.partial)
        _remove(self._old)
        self._lock_path.unlink(missing_ok=True)
        self._lock.close()
        self._lock = None


def deliver_all(outputs: list[Output]) -> None:
    """Move all outputs into place, or none: on an error those already moved are taken back."""
    try:
        for output in outputs:
            output.deliver()
    except BaseException:
        for output in outputs:
            output.undo()
        raise


def check_apart(locations: dict[str, str], directions: dict[str, str]) -> None:
    """Raise UserError where an output would lie in an input or another output, or hold it.

    locations: port -> path or uri; directions: port -> in or out.
    """
    places = {n: where.rstrip("/") if "://" in where else os.path.realpath(where) for n, where in locations.items()}
    for name, place in places.items():
        if directions[name] == "in":
            continue
        for other, elsewhere in places.items():
            if other != name and (f"{place}/").startswith(f"{elsewhere}/"):
                raise UserError(f"--{name}: {locations[name]} lies in --{other}; give it a place of its own")
            if directions[other] == "in" and (f"{elsewhere}/").startswith(f"{place}/"):
                raise UserError(f"--{name}: {locations[name]} holds --{other}; give it a place of its own")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_contents(folder: Path, keep: set[Path]) -> None:
    for item in folder.iterdir():
        if item not in keep:
            _remove(item)
