"""Show the progress of long work: a live line on a terminal, occasional plain lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class Progress:
    """Write `name: done/total, rate, time left` to standard error.

    On a terminal the line is redrawn up to five times a second; elsewhere a line follows after 5 s, then every 30 s.
    """

    def __init__(self, name: str, total: int, unit: str = "images", done: int = 0) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = self._first = done
        self._start = time.monotonic()
        self._live = sys.stderr.isatty()
        self._next = self._start + (0.0 if self._live else 5.0)

    def update(self, done: int, note: str = "") -> None:
        """Take note that `done` of `total` are done. note: text behind, such as the loss."""
        self.done = done
        now = time.monotonic()
        if now >= self._next:
            self._next = now + (0.2 if self._live else 30.0)
            self._show(now, note)

    def finish(self, note: str = "") -> None:
        """Show the last state at once."""
        self._show(time.monotonic(), note)
        if self._live:
            sys.stderr.write("\n")

    def _show(self, now: float, note: str) -> None:
        elapsed = max(now - self._start, 1e-9)
        rate = (self.done - self._first) / elapsed
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate > 0 and self.done < self.total else ""
        line = f"{self.name}: {self.done}/{self.total} {self.unit}, {rate:.3g}/s{left}{', ' + note if note else ''}"
        sys.stderr.write(f"\r\x1b[2K{line}" if self._live else line + "\n")
        sys.stderr.flush()


def track(items: Iterable[T], name: str, total: int, unit: str = "images") -> Iterator[T]:
    """Iterate over `items`, reporting progress."""
    progress = Progress(name, total, unit)
    for done, item in enumerate(items, 1):
        yield item
        progress.update(done)
    progress.finish()
