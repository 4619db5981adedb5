"""Check and decode BMP."""

import struct

import cv2
import numpy as np

from shared.readers.decode.limits import DeclaredSize, Palette, Samples
from shared.system.errors import ImageError


def bmp_header(head: bytes, size: int) -> DeclaredSize:
    """Read the size, and check that an uncompressed file has all its rows."""
    if len(head) < 34:
        raise ImageError("damaged: a BMP that ends before its header does")
    offset, header = struct.unpack("<II", head[10:18])
    if header < 40:
        raise ImageError("an OS/2 BMP; save it as PNG")
    width, height, _, bits, compression = struct.unpack("<iiHHI", head[18:34])
    height = abs(height)  # negative: rows from top to bottom
    if width <= 0 or height == 0 or bits not in (1, 4, 8, 16, 24, 32):
        raise ImageError(f"damaged: a BMP of {width} x {height} px with {bits} bits")
    rows = (width * bits + 31) // 32 * 4 * height
    if compression in (0, 3) and offset + rows > size:
        raise ImageError(f"truncated: {size} bytes, its header ({width} x {height} px) requires {offset + rows}")
    return DeclaredSize(height, width, 3, itemsize=1)


def bmp_samples(head: bytes) -> tuple[Samples, bool]:
    """Return what a pixel holds, or the palette, and whether there is alpha, which is not read."""
    if struct.unpack("<H", head[28:30])[0] > 8:
        return "colours", False
    offset, header = struct.unpack("<II", head[10:18])
    table = head[14 + header : offset]
    colours = np.frombuffer(table[: len(table) // 4 * 4] or bytes(4), np.uint8).reshape(-1, 4)[:, 2::-1]
    return Palette.of(colours) or "values", False


def decode_bmp(data: bytes) -> np.ndarray:
    """Decode to (H, W, 1 or 3) uint8; a palette of greys gives one channel."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ImageError("damaged: a BMP that cannot be decoded")
    (bits,) = struct.unpack("<H", data[28:30])
    grey = bits <= 8 and np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2])
    return image[..., :1] if grey else image[..., ::-1]


def bmp_with_grey_palette(data: bytes) -> bytes:
    """Make each colour of the palette the grey of its index: the indexes are decoded."""
    offset, header = struct.unpack("<II", data[10:18])
    (bits,) = struct.unpack("<H", data[28:30])
    first, count = 14 + header, min(256, max(0, offset - 14 - header) // 4)
    if bits > 8:
        return data
    palette = bytes(value for index in range(count) for value in (index, index, index, 0))
    return data[:first] + palette + data[first + len(palette) :]
