"""Read PNG, JPEG and BMP files, which hold one image each."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shared.readers.decode.bmp import bmp_header, bmp_samples, bmp_with_grey_palette, decode_bmp
from shared.readers.decode.jpeg import decode_jpeg, jpeg_exif, jpeg_header
from shared.readers.decode.limits import DeclaredSize, Limits, Samples, check_size, drop_alpha, with_samples
from shared.readers.decode.orientation import exif_orientation, is_transposed, turn
from shared.readers.decode.png import decode_png, png_exif, png_header, png_samples, png_with_grey_palette
from shared.system.errors import ImageError

MAX_HEADER_BYTES = 2**22
"""Bytes read to find the size: metadata may precede the frame header of a JPEG."""
MAX_METADATA_BYTES = 64 * 2**20
"""Bytes of a file beyond three times its decoded size."""


@dataclass(frozen=True)
class RasterFormat:
    """The functions of a format."""

    read_header: Callable[[bytes, int], DeclaredSize]
    """First bytes and size of the file -> declared size of the image as it is stored."""
    decode: Callable[[bytes], np.ndarray]
    """Whole file -> (H, W, C) uint8 or uint16."""
    with_grey_palette: Callable[[bytes], bytes] = bytes
    """Whole file -> the same file whose palette, if it has one, maps every index to itself."""
    exif: Callable[[bytes], bytes | None] = lambda head: None
    """First bytes of the file -> Exif metadata (a TIFF header on); None without any."""
    samples: Callable[[bytes], tuple[Samples, bool]] = lambda head: ("colours", False)
    """First bytes of the file -> `samples`, or the palette, and `has_alpha` of its frame."""


FORMATS = {
    b"\x89P": RasterFormat(png_header, decode_png, png_with_grey_palette, png_exif, png_samples),
    b"\xff\xd8": RasterFormat(jpeg_header, decode_jpeg, exif=jpeg_exif),
    b"BM": RasterFormat(bmp_header, decode_bmp, bmp_with_grey_palette, samples=bmp_samples),
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
        self.orientation = exif_orientation(FORMATS[head[:2]].exif(head))
        if is_transposed(self.orientation):
            declared = replace(declared, height=declared.width, width=declared.height)
        samples, has_alpha = FORMATS[head[:2]].samples(head)
        self.frames = [with_samples(declared.frame(), samples, has_alpha)]

    def read(self, index: int, *, raw: bool = False) -> tuple[np.ndarray, list[str]]:
        """Decode to (H, W, C) uint8 or uint16, turned as its orientation says; also return remarks.

        raw: keep the indexes of a palette, and alpha.
        """
        data, remarks = self.path.read_bytes(), list[str]()
        form = FORMATS[data[:2]]
        image = form.decode(form.with_grey_palette(data) if raw else data)
        if self.orientation != 1:
            image = np.ascontiguousarray(turn(image, self.orientation))
            remarks.append(f"turned as its orientation says (Exif, {self.orientation})")
        if image.shape[2] in (2, 4) and not raw:
            image = drop_alpha(image, remarks)
        expected = (self.frames[0].height, self.frames[0].width)
        if image.shape[:2] != expected:
            raise ImageError(f"decodes to {image.shape[:2]}, its header declares {expected}")
        return image, remarks

    def close(self) -> None:
        """Do nothing: no file stays open."""
