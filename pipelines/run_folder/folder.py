"""The folder of a run: opened by one executor at a time, and read without following links out of it."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipelines.run_folder import record
from shared.system.errors import UserError
from shared.system.locks import file_lock, lock_note

_LOCK = ".lock"
_GRAPH = "pipeline.yaml"


@contextlib.contextmanager
def opened(run: Path) -> Iterator[None]:
    """Create a run folder or take over an existing one, and hold its lock.

    Raises UserError where the folder holds something else than a run, or another process uses it.
    """
    _check_is_run(run)
    with contextlib.ExitStack() as stack:
        try:
            run.mkdir(parents=True, exist_ok=True)
            held = stack.enter_context(file_lock(run / _LOCK, wait=False, note=str(os.getpid())))
        except OSError as error:
            raise UserError(f"--out: {run}: {error.strerror}") from error
        if not held:
            owner = lock_note(run / _LOCK)
            raise UserError(f"--out: {run} is in use by process {owner}; wait until it ends, or give another folder")
        yield


def _check_is_run(run: Path) -> None:
    """Refuse a folder with files and no run record; a run that was killed early may have left two files alone."""
    if run.exists() and not run.is_dir():
        raise UserError(f"--out: {run} is a file; give a folder")
    if run.is_dir() and not (run / record.RUN_RECORD).is_file():
        names = sorted(path.name for path in run.iterdir())
        foreign = [name for name in names if name not in (_LOCK, _GRAPH) and ".partial-" not in name]
        if foreign:
            raise UserError(f"--out: {run} is not a run folder, {foreign[0]} is in it; give another folder")


def within(run: Path, path: str | Path) -> Path:
    """Resolve `path`, relative to the run folder; it need not exist. Everything that shows a run reads through this.

    Raises UserError where the real path is outside the run: the record, an artifact or a link in a folder that comes
    from elsewhere may name any file of this machine.
    """
    try:
        real = (run / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, an impossible file name
        raise UserError(f"{path}: not a path in a run folder; remove the link") from error
    if not real.is_relative_to(run.resolve()):
        raise UserError(f"{path}: outside the run folder; copy the file into it to show it")
    return real


def folder_within(run: Path, path: str | Path) -> Path:
    """Resolve a folder as `within` does, and check that no link inside it leads out of the run."""
    folder = within(run, path)
    for inner in folder.rglob("*"):
        if inner.is_symlink():
            within(run, inner)
    return folder


def place_graph(compiled: Path, run: Path) -> Path:
    """Copy the compiled graph into the run folder; it appears there complete or not at all."""
    partial = run / f".{_GRAPH}.partial-{os.getpid()}"
    shutil.copyfile(compiled, partial)
    partial.replace(run / _GRAPH)
    return run / _GRAPH
