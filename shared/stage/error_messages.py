"""Describe errors to users: the file or argument, the problem, the remedy."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.stage.declaration import Port, Stage
from shared.stage.wire import number_or_word
from shared.system.errors import UserError
from shared.system.suggestions import did_you_mean


def describe(error: BaseException, stage: type[Stage]) -> str:
    """Return the message for a user."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ValidationError) and error.title == stage.__name__:
        return "; ".join(dict.fromkeys(_field_problem(item, stage) for item in error.errors()))
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ConnectionError):
        return f"{error.filename or 'a file'}: {error.strerror}{_remedy(error.errno)}"
    if isinstance(error, MemoryError):
        return f"out of memory ({error}); use a smaller batch or tile size".replace(" ()", "")
    return f"{type(error).__name__}: {error} (a bug in the program; --debug shows the traceback)"


def _remedy(code: int | None) -> str:
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"; this process runs as user {os.getuid()}: give it access or another path"
    if code in (errno.ENOSPC, errno.EDQUOT):
        return "; free space (or set CYTOLOOM_TMP to another folder for temporary files) and run the same command again"
    return ""


def _field_problem(item: Any, stage: type[Stage]) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        near = did_you_mean(name, stage.model_fields)
        return f"--{name}: {stage.slug()} has no such parameter{near}; `--help` lists them"
    if item["type"] == "missing":
        return f"--{name}: required and not given; `--help` describes it"
    field = stage.parameters().get(str(item["loc"][0])) if item["loc"] else None
    if field is not None and (words := number_or_word(field)):
        return f"--{item['loc'][0]}: input should be {words} (given: {item['input']!r})"
    problem = item["msg"][0].lower() + item["msg"][1:]
    return f"--{name}: {problem.removeprefix('value error, ')} (given: {item['input']!r})"


@contextlib.contextmanager
def disk_watched(places: dict[str, Path], ports: dict[str, Port]) -> Iterator[None]:
    """Raise one UserError for the many ways in which libraries report a full disk.

    places: port -> path where it is written or read.
    """
    try:
        yield
    except Exception as error:
        for name, place in places.items():
            if ports[name].direction == "out" and (reason := _disk_problem(error, place)):
                raise UserError(
                    f"--{name}: {reason} below {place.parent}; free space and run the same command again"
                ) from error
        raise


def _disk_problem(error: BaseException | None, place: Path) -> str:
    """Return `the disk is full` or similar where `error` comes from that, else an empty string."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "a file is larger than is allowed",
    }
    while error is not None:
        code = error.errno if isinstance(error, OSError) else None
        for number, reason in reasons.items():
            if code == number or os.strerror(number) in str(error):
                return reason
        error = error.__cause__ or error.__context__
    existing = next((folder for folder in (place, *place.parents) if folder.exists()), Path("/"))
    return reasons[errno.ENOSPC] if shutil.disk_usage(existing).free < 2**16 else ""
