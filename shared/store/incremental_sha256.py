"""sha256 of files that arrive in parts."""

import hashlib
import threading
from pathlib import Path

BLOCK = 2**20
"""Bytes that are read at a time."""


class PartHashes:
    """sha256 of files whose parts arrive in any order: each part is hashed once all before it were.

    So the checking is done while other parts are on their way, by the threads that wait for them.
    """

    def __init__(self, folder: Path, sizes: dict[str, int], there: set[tuple[str, int]], part: int) -> None:
        """sizes: bytes of the files to hash; there: (name, offset) of parts that `folder` holds; part: its bytes."""
        self.folder, self.there, self.part = folder, set(there), part
        self.files = {name: _Hash(size) for name, size in sizes.items()}

    def arrived(self, name: str, offset: int) -> None:
        """A part was written."""
        self.there.add((name, offset))
        if name in self.files:
            self._go_on(name, self.files[name])

    def _go_on(self, name: str, file: "_Hash") -> None:
        """Hash what can be, unless another thread is at it: that one looks once more when it is done."""
        while (name, file.next) in self.there and file.busy.acquire(blocking=False):
            try:
                if (name, file.next) in self.there:
                    file.read_part(self.folder / name, self.part)
            finally:
                file.busy.release()

    def finished(self) -> dict[str, str]:
        """Name -> hash, once all parts are there."""
        for name, file in self.files.items():
            self._go_on(name, file)  # where nothing of it had to be fetched
        return {name: file.sum.hexdigest() for name, file in self.files.items() if file.next == file.size}


class _Hash:
    """One file, hashed up to `next`."""

    def __init__(self, size: int) -> None:
        self.size, self.next, self.sum, self.busy = size, 0, hashlib.sha256(), threading.Lock()

    def read_part(self, path: Path, part: int) -> None:
        """Hash the next `part` bytes, or what is left."""
        left = part
        with path.open("rb", buffering=0) as stream:
            stream.seek(self.next)
            while left and (block := stream.read(min(BLOCK, left))):
                self.sum.update(block)
                left -= len(block)
        self.next += part - left
