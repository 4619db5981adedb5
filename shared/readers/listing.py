"""List the files of a source. Loads no numpy: whoever submits a run uses it."""

import os
from pathlib import Path, PurePosixPath

from shared.system.errors import UserError

SKIPPED = {"__macosx", "thumbs.db", "desktop.ini", "lost+found"}


def list_files(source: Path) -> tuple[dict[PurePosixPath, Path], list[tuple[str, str]]]:
    """Relative path -> path of every file below `source` in order of their names; and (folder, reason) unreadable.

    `source` may be one file. Hidden files are passed over. Links are followed, every folder once, so loops end.
    Raises UserError where there is nothing to list.
    """
    try:
        if source.is_file():
            return {PurePosixPath(source.name): source}, []
        if not source.is_dir():
            raise UserError(f"{source}: no such file or folder; check the path of the source")
        found, unreadable = dict[PurePosixPath, Path](), list[tuple[str, str]]()
        _walk(source, PurePosixPath(), found, unreadable, set())
    except PermissionError as error:
        raise UserError(f"{error.filename or source}: no read permission; mend that, or run as another user") from error
    except OSError as error:
        raise UserError(f"{source}: {error.strerror}") from error
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
        if entry.name.startswith(".") or entry.name.lower() in SKIPPED:
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
