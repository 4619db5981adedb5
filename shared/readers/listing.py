"""List the files of a source. Submitting a run needs this module, so it loads no numpy."""

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from shared.system.errors import UserError
from shared.system.names import visible

IGNORED_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "lost+found"}
"""Names in lower case of files and folders that operating systems create."""
_RESULT_FILES = ("run.json", "artifact.json")
"""Files of a run folder and of an artifact: what the program wrote is no source of images."""

_ZARR_FILES = (".zgroup", ".zarray", "zarr.json")
_ZARR = "a Zarr folder, which is not read; save its images as OME-TIFF"


@dataclass
class Listing:
    """Files of a folder, and what was not listed."""

    files: dict[PurePosixPath, Path] = field(default_factory=dict)
    """Relative path -> path, in the order of the names."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(folder or file, reason)"""
    passed_over: list[tuple[str, str]] = field(default_factory=list)
    """(folder, remark) of folders with results of the program."""


def list_files(source: Path) -> Listing:
    """List a folder or one file.

    Hidden files are ignored, and folders below the source that hold a run or an artifact. Links are followed, to each
    folder once, so loops end. Raises UserError where the source does not exist or cannot be read.
    """
    try:
        if source.is_file():
            return Listing({PurePosixPath(source.name): source})
        if not source.is_dir():
            raise UserError(f"{source}: no such file or folder; check the path of the source")
        listing = Listing()
        _walk(source, PurePosixPath(), listing, set())
    except PermissionError as error:
        raise UserError(f"{error.filename or source}: no read permission; grant it, or run as another user") from error
    except OSError as error:
        raise UserError(f"{source}: {error.strerror}; check the path of the source") from error
    return listing


def _walk(folder: Path, relative: PurePosixPath, listing: Listing, seen: set[tuple[int, int]]) -> None:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    if relative.parts and any(entry.name in _RESULT_FILES for entry in listed):
        listing.passed_over.append((_text(relative), "left out: a folder with results of an earlier run"))
        return
    if any(entry.name in _ZARR_FILES for entry in listed):
        if not relative.parts:
            raise UserError(f"{folder}: {_ZARR}")
        listing.unreadable.append((_text(relative), _ZARR))
        return
    for entry in listed:
        if entry.name.startswith(".") or entry.name.lower() in IGNORED_NAMES:
            continue
        name = relative / entry.name
        try:
            if entry.is_dir():
                _walk(Path(entry.path), name, listing, seen)
            else:
                listing.files[name] = Path(entry.path)
        except PermissionError:
            listing.unreadable.append((_text(name), "no read permission"))
        except OSError as error:
            if entry.is_symlink():
                continue  # a link to itself
            listing.unreadable.append((_text(name), error.strerror or "error"))


def _text(path: PurePosixPath) -> str:
    return visible(os.fsencode(str(path)).decode("utf-8", "backslashreplace"))
