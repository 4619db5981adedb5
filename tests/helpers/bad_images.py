"""Broken image files of many kinds, made from good ones or byte by byte."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

DECLARED_SIDE = 20_000
"""px declared by headers without image data."""


def picture(height: int = 60, width: int = 80, channels: int = 3) -> np.ndarray:
    """Smooth colours with some noise, uint8."""
    y, x, c = np.ogrid[:height, :width, :channels]
    noise = np.random.default_rng(0).integers(0, 20, (height, width, channels))
    return ((x + 2 * y + 40 * c) % 230 + noise).astype(np.uint8)


def encoded(kind: str, image: np.ndarray | None = None) -> bytes:
    """Bytes of a good file, encoded by a library that the project does not use for decoding."""
    stream = io.BytesIO()
    Image.fromarray(picture() if image is None else image).save(stream, kind)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png() -> bytes:
    head = struct.pack(">IIBBBBB", DECLARED_SIDE, DECLARED_SIDE, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def huge_jpeg() -> bytes:
    data = encoded("JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", DECLARED_SIDE, DECLARED_SIDE) + data[at + 4 :]


def huge_bmp() -> bytes:
    data = encoded("BMP")
    return data[:18] + struct.pack("<ii", DECLARED_SIDE, DECLARED_SIDE) + data[26:]


def huge_tiff(strip: int, compression: int) -> bytes:
    """One strip of DECLARED_SIDE x DECLARED_SIDE uint8 that declares `strip` bytes and has 8."""
    tags = [
        (256, DECLARED_SIDE),
        (257, DECLARED_SIDE),
        (258, 8),
        (259, compression),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, DECLARED_SIDE),
        (279, strip),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 16) + b"x" * 8 + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def tiff(image: np.ndarray, **options: object) -> bytes:
    """Bytes of a TIFF."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, image, **options)
    return stream.getvalue()


def with_value(value: float) -> np.ndarray:
    image = picture(channels=1)[..., 0].astype(np.float32)
    image[3, 4] = value
    return image


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "text.tif": (lambda: b"this is a text file, not a picture\n", "not a TIF file"),
    "empty.tif": (lambda: b"", "empty"),
    "short.tif": (lambda: tiff(picture())[:-1000], "truncated"),
    "short-lzw.tif": (lambda: tiff(picture(200, 200), compression="zlib", rowsperstrip=20)[:9000], "truncated"),
    "short-pages.tif": (
        lambda: tiff(np.stack([picture()] * 4), photometric="rgb", metadata=None)[:-15000],
        "truncated",
    ),
    "headless.tif": (lambda: tiff(picture())[:10], "truncated"),
    "short.png": (lambda: encoded("PNG")[:-2000], "truncated"),
    "endless.png": (lambda: encoded("PNG")[:-12], "truncated"),
    "changed.png": (lambda: encoded("PNG")[:900] + b"?" + encoded("PNG")[901:], "checksum"),
    "header.png": (lambda: encoded("PNG")[:20], "damaged"),
    "short.jpg": (lambda: encoded("JPEG")[:-300], "truncated"),
    "endless.jpg": (lambda: encoded("JPEG")[:-2], "truncated"),
    "header.jpg": (lambda: encoded("JPEG")[:100], "damaged"),
    "cmyk.jpg": (lambda: _cmyk(), "CMYK"),
    "short.bmp": (lambda: encoded("BMP")[:-500], "truncated"),
    "one.tif": (lambda: tiff(np.ones((1, 1), np.uint8)), "1 x 1 px"),
    "one.png": (lambda: encoded("PNG", picture(1, 1)), "1 x 1 px"),
    "flat.tif": (lambda: tiff(np.full((50, 60), 7, np.uint16)), "constant"),
    "flat.png": (lambda: encoded("PNG", np.zeros((50, 60, 3), np.uint8) + np.uint8([1, 2, 3])), "constant"),
    "nan.tif": (lambda: tiff(with_value(np.nan)), "NaN or infinite"),
    "inf.tif": (lambda: tiff(with_value(np.inf)), "NaN or infinite"),
    "complex.tif": (lambda: tiff(with_value(1).astype(np.complex64)), "complex"),
    "huge.png": (huge_png, "declares"),
    "huge.jpg": (huge_jpeg, "declares"),
    "huge.bmp": (huge_bmp, "truncated"),
    "huge.tif": (lambda: huge_tiff(DECLARED_SIDE * DECLARED_SIDE, 1), "truncated"),
    "huge-short.tif": (lambda: huge_tiff(8, 1), "truncated"),
    "huge-zlib.tif": (lambda: huge_tiff(8, 8), "declares"),
    "huge-claims.tif": (lambda: huge_tiff(10**7, 8), "truncated"),
    "zip.png": (lambda: b"PK\3\4" + bytes(100), "not a PNG file"),
    "slide.czi": (lambda: b"ZISRAWFILE" + bytes(100), "cytoloom[bioio]"),
}
"""Name -> maker of its bytes, and a part of the expected reason."""


def _cmyk() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture()).convert("CMYK").save(stream, "JPEG")
    return stream.getvalue()


def write_all(folder: Path) -> None:
    """Write every bad file."""
    for name, (make, _) in BAD.items():
        (folder / name).write_bytes(make())
