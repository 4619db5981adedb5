"""Find the runs below a folder."""

import os
from pathlib import Path
from urllib.parse import quote

from pipelines.run_folder.folder import within
from pipelines.run_folder.record import RUN_RECORD
from shared.system.errors import UserError

_DEPTH = 3
"""Levels of folders below the given one in which runs are looked for."""


def find_runs(folder: Path) -> dict[str, Path]:
    """Return name -> folder of every run, the latest first. The given folder may itself be a run."""
    if _last_written(folder) is not None:
        return {folder.name: folder}
    found: dict[Path, float] = {}
    level = [folder]
    for _ in range(_DEPTH):
        times = {path: _last_written(path) for parent in level for path in _subfolders(parent)}
        found |= {path: time for path, time in times.items() if time is not None}
        level = [path for path, time in times.items() if time is None]
    latest = sorted(found, key=lambda path: (-found[path], path))
    return {path.relative_to(folder).as_posix(): path for path in latest}


def split_path(path: str, runs: dict[str, Path]) -> tuple[str, Path, str] | None:
    """Split `NAME/REST` into the run's name, its folder and the rest; None where it is in no run."""
    for name, folder in sorted(runs.items(), key=lambda item: -len(item[0])):
        if path == name or path.startswith(f"{name}/"):
            return name, folder, path[len(name) + 1 :]
    return None


def quoted(path: str) -> str:
    """Quote a path for a URL; a file name need not be UTF-8."""
    return quote(os.fsencode(path))


def run_url(name: str) -> str:
    """Return the address of a run's page."""
    return f"/runs/{quoted(name)}/"


def _subfolders(parent: Path) -> list[Path]:
    try:
        return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink() and path.name[:1] != "."]
    except OSError:
        return []


def _last_written(folder: Path) -> float | None:
    """When the record of a run was last written; None where the folder is not a run, or was removed meanwhile."""
    try:
        record = within(folder, RUN_RECORD)
        return record.stat().st_mtime if record.is_file() else None
    except (OSError, UserError):
        return None
