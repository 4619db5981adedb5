"""Check and decode PNG (https://www.w3.org/TR/png-3/)."""

import struct
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np

from shared.readers.decode.limits import DeclaredSize, Palette, Samples
from shared.system.errors import ImageError

_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
"""Colour type -> channels after decoding, with the palette expanded."""
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type -> stored samples per pixel."""


def png_header(head: bytes, size: int) -> DeclaredSize:
    """Read the size, and compare it with the file size in bytes.

    Deflate expands a byte to at most 1032 (https://zlib.net/zlib_tech.html), so the file size bounds the pixels.
    """
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise ImageError("damaged: a PNG that ends before its header does")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    if colour not in _CHANNELS or depth not in (1, 2, 4, 8, 16):
        raise ImageError(f"damaged: a PNG of colour type {colour} with {depth} bits")
    stored_bits = depth * _SAMPLES[colour] * width * height
    if stored_bits // 8 > 1032 * size:
        raise ImageError(f"declares {width} x {height} px, but the file has only {size} bytes")
    return DeclaredSize(height, width, _CHANNELS[colour], 2 if depth == 16 else 1)


def png_samples(head: bytes) -> tuple[Samples, bool]:
    """Return what a pixel holds, or the palette, and whether there is alpha."""
    colour = head[25]
    if colour != 3:
        return "colours" if colour in (2, 6) else "values", colour in (4, 6)
    table = next((head[start:end] for kind, start, end in _chunks(head) if kind == b"PLTE"), b"")
    return Palette.of(
        np.frombuffer(table[: len(table) // 3 * 3] or bytes(3), np.uint8).reshape(-1, 3)
    ) or "values", False


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and start and end of the contents, of every complete chunk."""
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if position + 12 + length > len(data):
            return
        yield kind, position + 8, position + 8 + length
        position += 12 + length


def png_exif(head: bytes) -> bytes | None:
    """Return the Exif metadata of a file, given its first bytes."""
    return next((head[start:end] for kind, start, end in _chunks(head) if kind == b"eXIf"), None)


def png_with_grey_palette(data: bytes) -> bytes:
    """Make each colour of the palette the grey of its index, and all of them opaque: the indexes are decoded."""
    if len(data) < 33 or data[25] != 3:
        return data
    parts, last = [data[:8]], 8
    for kind, start, end in _chunks(data):
        chunk = data[start - 8 : end + 4]
        if kind == b"PLTE":
            body = kind + bytes(index for index in range((end - start) // 3) for _ in range(3))
            chunk = struct.pack(">I", end - start) + body + struct.pack(">I", zlib.crc32(body))
        parts += [] if kind == b"tRNS" else [chunk]
        last = end + 4
    return b"".join([*parts, data[last:]])


def _check_complete(data: bytes) -> None:
    """Raise ImageError unless every chunk is complete and matches its checksum, up to IEND."""
    for kind, start, end in _chunks(data):
        (crc,) = struct.unpack(">I", data[end : end + 4])
        if zlib.crc32(memoryview(data)[start - 4 : end]) != crc:
            raise ImageError(f"damaged: a PNG whose {kind.decode('latin1')} chunk fails its checksum")
        if kind == b"IEND":
            return
    raise ImageError(f"truncated: a PNG that ends after {len(data)} bytes, without its end marker (IEND)")


def decode_png(data: bytes) -> np.ndarray:
    """Decode a complete file to (H, W, C) uint8 or uint16, alpha included. Raises ImageError for a damaged one."""
    _check_complete(data)
    image = imagecodecs.png_decode(data)
    return image if image.ndim == 3 else image[..., None]
