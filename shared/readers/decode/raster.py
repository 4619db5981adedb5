"""Decode PNG, JPEG and BMP; check headers and completeness."""

import struct
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np

from shared.readers.decode.limits import DeclaredSize, Limits, check_size, drop_alpha
from shared.system.errors import ImageError

PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
"""Colour type -> channels after decoding, with the palette expanded."""
PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Colour type -> stored samples per pixel."""
NOT_FRAME_HEADERS = {0xC4, 0xC8, 0xCC}
"""JPEG markers DHT, JPG, DAC in the range of frame headers (SOF0 to SOF15)."""
MAX_HEADER_BYTES = 2**22
"""Bytes read to find the size: metadata may precede the frame header of a JPEG."""
MAX_METADATA_BYTES = 64 * 2**20
"""Bytes of a file beyond three times its decoded size."""


class RasterReader:
    """A file with one image. It is read as a whole; the size that its header declares bounds its bytes."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(MAX_HEADER_BYTES)
        header = {b"\x89P": png_header, b"\xff\xd8": jpeg_header, b"BM": bmp_header}[head[:2]]
        declared = header(head, size)
        check_size(declared, size, limits)
        if size > 3 * declared.nbytes + MAX_METADATA_BYTES:
            raise ImageError(f"{size} bytes are too many for {declared.width} x {declared.height} px")
        self.frames = [declared.frame()]

    def read(self, index: int) -> tuple[np.ndarray, list[str]]:
        """Decode to (H, W, C) uint8 or uint16; also return remarks."""
        data, remarks = self.path.read_bytes(), list[str]()
        if data[:2] == b"\x89P":
            check_png(data)
            image = _with_channels(imagecodecs.png_decode(data))
            if image.shape[2] in (2, 4):
                image = drop_alpha(image, remarks)
        elif data[:2] == b"\xff\xd8":
            check_jpeg(data)
            image = _with_channels(imagecodecs.jpeg_decode(data))
            if image.shape[2] == 4:
                raise ImageError("a CMYK JPEG; save it as RGB")
        else:
            image = _read_bmp(data)
        expected = (self.frames[0].height, self.frames[0].width)
        if image.shape[:2] != expected:
            raise ImageError(f"decodes to {image.shape[:2]}, its header declares {expected}")
        return image, remarks

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _with_channels(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else image[..., None]


def png_header(head: bytes, size: int) -> DeclaredSize:
    """Read the size, and compare it with the file size in bytes.

    Deflate expands a byte to at most 1032 (https://zlib.net/zlib_tech.html), so the file size bounds the pixels.
    """
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise ImageError("damaged: a PNG that ends before its header does")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    if colour not in PNG_CHANNELS or depth not in (1, 2, 4, 8, 16):
        raise ImageError(f"damaged: a PNG of colour type {colour} with {depth} bits")
    stored_bits = depth * PNG_SAMPLES[colour] * width * height
    if stored_bits // 8 > 1032 * size:
        raise ImageError(f"declares {width} x {height} px, but the file has only {size} bytes")
    return DeclaredSize(height, width, PNG_CHANNELS[colour], 2 if depth == 16 else 1)


def check_png(data: bytes) -> None:
    """Raise ImageError unless every chunk is complete and matches its checksum, up to IEND."""
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        end = position + 12 + length
        if end > len(data):
            break
        (crc,) = struct.unpack(">I", data[end - 4 : end])
        if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != crc:
            raise ImageError(f"damaged: a PNG whose {kind.decode('latin1')} chunk fails its checksum")
        if kind == b"IEND":
            return
        position = end
    raise ImageError(f"truncated: a PNG that ends after {len(data)} bytes, without its end marker (IEND)")


def jpeg_segments(data: bytes) -> tuple[tuple[int, int, int] | None, int | None]:
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
        if 0xC0 <= marker <= 0xCF and marker not in NOT_FRAME_HEADERS and position + 10 <= len(data):
            height, width, components = struct.unpack(">HHB", data[position + 5 : position + 10])
            found = (height, width, components)
        position += 2 + length
    return found, None


def jpeg_header(head: bytes, size: int) -> DeclaredSize:
    """Read the size."""
    found, _ = jpeg_segments(head)
    if found is None:
        raise ImageError("damaged: a JPEG that ends before its header does")
    return DeclaredSize(*found, itemsize=1)


def check_jpeg(data: bytes) -> None:
    """Raise ImageError unless an end marker follows the first scan: libjpeg fills missing pixels with grey."""
    _, scan = jpeg_segments(data)
    if scan is None or data.rfind(b"\xff\xd9") < scan:
        raise ImageError(f"truncated: a JPEG that ends after {len(data)} bytes, without its end marker (EOI)")


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


def _read_bmp(data: bytes) -> np.ndarray:
    """Decode to (H, W, 1 or 3) uint8; a palette of greys gives one channel."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ImageError("damaged: a BMP that cannot be decoded")
    (bits,) = struct.unpack("<H", data[28:30])
    grey = bits <= 8 and np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2])
    return image[..., :1] if grey else image[..., ::-1]
