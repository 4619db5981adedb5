"""Show the progress of a run: plain lines, and on a terminal one live line for each running task."""

import itertools
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

_INTERVAL = 0.25
"""s between two updates of the live lines."""


class Display:
    """Writes lines to standard error, and redraws the live lines below them."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self.stream = stream
        self.live = stream.isatty()
        self._drawn = 0
        self._next = 0.0

    def line(self, text: str) -> None:
        """Write a permanent line: `12:04:31 em-0/cluster  done in 3.1 s`."""
        self.clear()
        self.stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        self.stream.flush()
        self._next = 0.0

    def tick(self, running: Iterable[tuple[str, float, Path]]) -> None:
        """Redraw the live lines. running: (task, wall time in s, log) of each running task."""
        now = time.monotonic()
        if not self.live or now < self._next:
            return
        self._next = now + _INTERVAL
        width = shutil.get_terminal_size().columns - 1
        lines = [f"  {name}  {seconds:.0f} s  {last_line(log)}"[:width] for name, seconds, log in running]
        self.clear()
        self.stream.write("".join(line + "\n" for line in lines))
        self.stream.flush()
        self._drawn = len(lines)

    def clear(self) -> None:
        """Remove the live lines."""
        if self._drawn:
            self.stream.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0


def last_lines(log: Path, size: int = 16384) -> list[str]:
    """Return the lines in the last `size` bytes of a log, without control characters."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - size))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = text.replace("\r", "\n").splitlines()
    return [cleaned for line in lines if (cleaned := "".join(c for c in line if c.isprintable()).rstrip())]


def last_line(log: Path) -> str:
    """Return the last line of a log."""
    return next(reversed(last_lines(log, 2048)), "")


def error_line(log: Path) -> str:
    """Return the stage's own message, `error: ...` with its indented lines, if there is one, else the last line."""
    lines = last_lines(log)
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if not starts:
        return lines[-1] if lines else ""
    more = itertools.takewhile(lambda line: line.startswith("  "), lines[starts[-1] + 1 :])
    return "\n".join([lines[starts[-1]], *more])
