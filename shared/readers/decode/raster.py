"""Read PNG, JPEG and BMP files, which hold one image each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.readers.decode.bmp import bmp_header, decode_bmp
from shared.readers.decode.jpeg import decode_jpeg, jpeg_header
from shared.readers.decode.limits import DeclaredSize, Limits, check_size, drop_alpha
from shared.readers.decode.png import decode_png, png_header
from shared.system.errors import ImageError

MAX_HEADER_BYTES = 2**22
"""Bytes read to find the size: metadata may precede the frame header of a JPEG."""
MAX_METADATA_BYTES = 64 * 2**20
"""Bytes of a file beyond three times its decoded size."""


@dataclass(frozen=True)
class RasterFormat:
    """The two functions of a format."""

    read_header: Callable[[bytes, int], DeclaredSize]
    """First bytes and size of the file -> declared size of the image."""
    decode: Callable[[bytes], np.ndarray]
    """Whole file -> (H, W, C) uint8 or uint16."""


FORMATS = {
    b"\x89P": RasterFormat(png_header, decode_png),
    b"\xff\xd8": RasterFormat(jpeg_header, decode_jpeg),
    b"BM": RasterFormat(bmp_header, decode_bmp),
}
"""First two bytes of a file -> its format."""


class RasterReader:
    """A file with one image. It is read as a whole; the size that its header declares bounds its bytes."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(MAX_HEADER_BYTES)
        declared = FORMATS[head[:2]].read_header(head, size)
        check_size(declared, size, limits)
        if size > 3 * declared.nbytes + MAX_METADATA_BYTES:
            raise ImageError(f"{size} bytes are too many for {declared.width} x {declared.height} px")
        self.frames = [declared.frame()]

    def read(self, index: int) -> tuple[np.ndarray, list[str]]:
        """Decode to (H, W, C) uint8 or uint16 without alpha; also return remarks."""
        data, remarks = self.path.read_bytes(), list[str]()
        image = FORMATS[data[:2]].decode(data)
        if image.shape[2] in (2, 4):
            image = drop_alpha(image, remarks)
        expected = (self.frames[0].height, self.frames[0].width)
        if image.shape[:2] != expected:
            raise ImageError(f"decodes to {image.shape[:2]}, its header declares {expected}")
        return image, remarks

    def close(self) -> None:
        """Do nothing: no file stays open."""
