"""How much memory and time the reading of a file may take. What exceeds them is damaged, or made to do harm."""

from pathlib import Path

from shared.system.processes.isolation import Bounds

BYTES_PER_LABEL_PX = 48
"""Bytes of memory per pixel while a label image is read."""
BYTES_PER_SECOND = 2e6
"""Bytes of decoded pixels that a slow machine reads, checks and encodes in a second, at least."""
_BASE = Bounds(2**30, 60.0)
"""Of any file: memory in bytes, seconds of processor time."""
_MEMORY_PER_BYTE_OF_TEXT = 32
"""Bytes of memory per byte of JSON or XML while it is parsed."""


def header_bounds(path: Path) -> Bounds:
    """Bounds of reading the header of an image file; libraries may map the whole file into memory."""
    size = _size(path)
    return Bounds(_BASE.memory + size, _BASE.seconds + size / (10 * BYTES_PER_SECOND))


def text_bounds(path: Path) -> Bounds:
    """Bounds of parsing a file of annotations or a table."""
    size = _size(path)
    return Bounds(_BASE.memory + _MEMORY_PER_BYTE_OF_TEXT * size, _BASE.seconds + size / BYTES_PER_SECOND)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
