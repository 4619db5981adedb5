"""List the files of a source. Submitting a run needs this module, so it loads no numpy."""

import os
from pathlib import Path, PurePosixPath

from shared.system.errors import UserError

IGNORED_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "lost+found"}
"""Names in lower case of files and folders that operating systems create."""


def list_files(source: Path) -> tuple[dict[PurePosixPath, Path], list[tuple[str, str]]]:
    """List a folder or one file: relative path -> path, in the order of the names; and (folder, reason) unreadable.

    Hidden files are ignored. Links are followed, to each folder once, so loops end. Raises UserError where the source
    does not exist or cannot be read.
    """
    try:
        if source.is_file():
            return {PurePosixPath(source.name): source}, []
        if not source.is_dir():
            raise UserError(f"{source}: no such file or folder; check the path of the source")
        found, unreadable = dict[PurePosixPath, Path](), list[tuple[str, str]]()
        _walk(source, PurePosixPath(), found, unreadable, set())
    except PermissionError as error:
        raise UserError(f"{error.filename or source}: no read permission; grant it, or run as another user") from error
    except OSError as error:
        raise UserError(f"{source}: {error.strerror}; check the path of the source") from error
    return found, unreadable


def _walk(
    folder: Path,
    relative: PurePosixPath,
    found: dict[PurePosixPath, Path],
    unreadable: list[tuple[str, str]],
    seen: set[tuple[int, int]],
) -> None:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    for entry in listed:
        if entry.name.startswith(".") or entry.name.lower() in IGNORED_NAMES:
            continue
        name = relative / entry.name
        try:
            if entry.is_dir():
                _walk(Path(entry.path), name, found, unreadable, seen)
            else:
                found[name] = Path(entry.path)
        except PermissionError:
            unreadable.append((os.fsencode(str(name)).decode("utf-8", "backslashreplace"), "no read permission"))
        except OSError as error:
            if entry.is_symlink():
                continue  # a link to itself
            unreadable.append((os.fsencode(str(name)).decode("utf-8", "backslashreplace"), error.strerror or "error"))
