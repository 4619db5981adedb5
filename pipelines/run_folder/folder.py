"""The folder of a run: opened by one executor at a time, never somebody else's, and never left by who reads it."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipelines.run_folder import record
from shared.system.errors import UserError

LOCK = ".lock"
GRAPH = "pipeline.yaml"
OWN = {LOCK, GRAPH}
"""Files that a run which was killed at once may have left alone."""


@contextlib.contextmanager
def opened(run: Path) -> Iterator[None]:
    """Make the folder where it does not exist, refuse one that is no run, and hold its lock."""
    if run.exists() and not run.is_dir():
        raise UserError(f"--out: {run} is a file; give a folder")
    if run.is_dir() and not (run / record.NAME).is_file():
        foreign = sorted(p.name for p in run.iterdir() if p.name not in OWN and ".partial-" not in p.name)
        if foreign:
            raise UserError(f"--out: {run} is not empty and no run folder ({foreign[0]} is in it); give another one")
    try:
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"--out: {run}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = (run / LOCK).read_text().strip()
            raise UserError(
                f"--out: {run} is in use by process {owner}; wait for it, or give another folder"
            ) from error
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def within(run: Path, path: str | Path) -> Path:
    """Where `path`, relative to the run folder, really is; it need not exist. Whoever shows a run reads through this.

    Raises UserError where it is outside the run: a record, an artifact or a link in a folder that comes from elsewhere
    may name any file of this machine.
    """
    try:
        real = (run / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a name that no file can have
        raise UserError(f"{path}: no path of a run") from error
    if not real.is_relative_to(run.resolve()):
        raise UserError(f"{path}: outside the run folder, so it is not shown")
    return real


def folder_within(run: Path, path: str | Path) -> Path:
    """As `within`, for a folder whose files are then read by name: no link in it leads out either."""
    folder = within(run, path)
    for inner in folder.rglob("*"):
        if inner.is_symlink():
            within(run, inner)
    return folder


def place_graph(compiled: Path, run: Path) -> Path:
    """Put the compiled graph into the run folder, as a whole."""
    partial = run / f".{GRAPH}.partial-{os.getpid()}"
    shutil.copyfile(compiled, partial)
    partial.replace(run / GRAPH)
    return run / GRAPH
