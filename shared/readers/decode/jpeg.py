"""Check and decode JPEG (ITU-T T.81)."""

import struct

import imagecodecs
import numpy as np

from shared.readers.decode.limits import DeclaredSize
from shared.system.errors import ImageError

_NOT_FRAME_HEADERS = {0xC4, 0xC8, 0xCC}
"""Markers DHT, JPG, DAC in the range of frame headers (SOF0 to SOF15)."""


def _segments(data: bytes) -> tuple[tuple[int, int, int] | None, int | None]:
    """Return (height, width, components) of the frame header and the position of the first scan; None where missing."""
    position, found = 2, None
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xDA:
            return found, position
        (length,) = struct.unpack(">H", data[position + 2 : position + 4])
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAME_HEADERS and position + 10 <= len(data):
            height, width, components = struct.unpack(">HHB", data[position + 5 : position + 10])
            found = (height, width, components)
        position += 2 + length
    return found, None


def jpeg_exif(head: bytes) -> bytes | None:
    """Return the Exif metadata (segment APP1) of a file, given its first bytes."""
    position = 2
    while position + 4 <= len(head) and head[position] == 0xFF and head[position + 1] != 0xDA:
        (length,) = struct.unpack(">H", head[position + 2 : position + 4])
        body = head[position + 4 : position + 2 + length]
        if head[position + 1] == 0xE1 and body[:6] == b"Exif\0\0":
            return body[6:]
        position += 1 if head[position + 1] == 0xFF else 2 + length
    return None


def jpeg_header(head: bytes, size: int) -> DeclaredSize:
    """Read the size."""
    found, _ = _segments(head)
    if found is None:
        raise ImageError("damaged: a JPEG that ends before its header does")
    return DeclaredSize(*found, itemsize=1)


def _check_complete(data: bytes) -> None:
    """Raise ImageError unless an end marker follows the first scan: libjpeg fills missing pixels with grey."""
    _, scan = _segments(data)
    if scan is None or data.rfind(b"\xff\xd9") < scan:
        raise ImageError(f"truncated: a JPEG that ends after {len(data)} bytes, without its end marker (EOI)")


def decode_jpeg(data: bytes) -> np.ndarray:
    """Decode a complete file to (H, W, 1 or 3) uint8. Raises ImageError for a truncated one and for CMYK."""
    _check_complete(data)
    image = imagecodecs.jpeg_decode(data)
    image = image if image.ndim == 3 else image[..., None]
    if image.shape[2] == 4:
        raise ImageError("a CMYK JPEG; save it as RGB")
    return image
