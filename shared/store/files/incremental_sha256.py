"""Compute the sha256 of files while their parts arrive."""

import hashlib
import threading
from pathlib import Path

_READ_BYTES = 2**20
"""Bytes read from a file at a time."""


class IncrementalSha256:
    """sha256 of files whose parts arrive in any order: each part is hashed once all parts before it have arrived.

    The threads that receive parts do the hashing, so it overlaps with the transfer.
    """

    def __init__(self, folder: Path, sizes: dict[str, int], arrived: set[tuple[str, int]], part_bytes: int) -> None:
        """sizes: bytes of the files to hash; arrived: (name, offset) of parts that `folder` holds already."""
        self.folder, self.parts, self.part_bytes = folder, set(arrived), part_bytes
        self.files = {name: _FileHash(size) for name, size in sizes.items()}

    def add_part(self, name: str, offset: int) -> None:
        """Take note of a part that was written, and hash what can be hashed."""
        self.parts.add((name, offset))
        if name in self.files:
            self._advance(name, self.files[name])

    def _advance(self, name: str, file: "_FileHash") -> None:
        """Hash the parts that follow, unless another thread is doing so: it looks once more when it is done."""
        while (name, file.next) in self.parts and file.lock.acquire(blocking=False):
            try:
                if (name, file.next) in self.parts:
                    file.read_part(self.folder / name, self.part_bytes)
            finally:
                file.lock.release()

    def hexdigests(self) -> dict[str, str]:
        """Return name -> hash, once all parts have arrived."""
        for name, file in self.files.items():
            self._advance(name, file)  # no part of it may have been fetched in this run
        return {name: file.sum.hexdigest() for name, file in self.files.items() if file.next == file.size}


class _FileHash:
    """One file, hashed up to `next`."""

    def __init__(self, size: int) -> None:
        self.size, self.next, self.sum, self.lock = size, 0, hashlib.sha256(), threading.Lock()

    def read_part(self, path: Path, part_bytes: int) -> None:
        """Hash the next part, or what is left of the file."""
        left = part_bytes
        with path.open("rb", buffering=0) as stream:
            stream.seek(self.next)
            while left and (data := stream.read(min(_READ_BYTES, left))):
                self.sum.update(data)
                left -= len(data)
        self.next += part_bytes - left
