"""Open plain image files and decode their frames to (H, W, C), with checks before and after decoding.

The declared size is compared with the bytes of the file before anything is allocated. Every fault is an `ImageError`
whose text is the reason alone; the caller knows the file.

- Alpha is dropped; a remark reports an alpha channel that is not constant. Palettes become grey or RGB.
- PNG and JPEG are turned as their orientation (Exif) says, as viewers do; the orientation of a TIFF is ignored, as
  programs for microscopy do. A remark says either.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np

from shared.readers.decode.limits import Frame, Limits
from shared.readers.decode.raster import RasterReader
from shared.readers.decode.tiff import TiffReader
from shared.readers.decode.vendor import VENDOR_SUFFIXES, VendorReader
from shared.system.errors import ImageError

__all__ = ["IMAGE_SUFFIXES", "Frame", "ImageFile", "Limits", "open_image"]

T = TypeVar("T")
_PLAIN_SUFFIXES = {".tif", ".tiff", ".btf", ".tf8", ".lsm", ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib"}
IMAGE_SUFFIXES = _PLAIN_SUFFIXES | VENDOR_SUFFIXES
"""Suffixes of image files, in lower case."""


class FormatReader(Protocol):
    """Decoder of one format, behind an `ImageFile`."""

    frames: list[Frame]

    def read(self, index: int, *, raw: bool = False) -> tuple[np.ndarray, list[str]]:
        """Decode one frame (H, W, C) of any dtype; also return remarks. raw: as `ImageFile.read`."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


@dataclass
class ImageFile:
    """An open image file with a checked header.

    >>> with open_image(path, Limits()) as file:
    ...     for index in range(len(file.frames)):
    ...         image, remarks = file.read(index)
    """

    reader: FormatReader
    frames: list[Frame] = field(init=False)
    """One per image in the file, in order."""

    def __post_init__(self) -> None:
        self.frames = self.reader.frames

    def read(self, index: int, *, raw: bool = False) -> tuple[np.ndarray, list[str]]:
        """Decode one frame, (H, W, C) of any dtype; also return remarks about its pixels.

        raw: as label images are read: palettes give their indexes, not their colours, and alpha is kept.
        """
        return _with_image_errors(lambda: self.reader.read(index, raw=raw))

    def close(self) -> None:
        """Close the file."""
        self.reader.close()

    def __enter__(self) -> "ImageFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_image(path: Path, limits: Limits) -> ImageFile:
    """Open a file and check its header. The first bytes determine the format, except vendor formats: the suffix.

    Raises ImageError with the reason alone.
    """
    return _with_image_errors(lambda: _open(path, limits))


def _open(path: Path, limits: Limits) -> ImageFile:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a regular file")
    if status.st_size == 0:
        raise ImageError("the file is empty (0 bytes)")
    if not os.access(path, os.R_OK):
        raise PermissionError
    if path.suffix.lower() in VENDOR_SUFFIXES:
        return _with_frames(VendorReader(path, limits))
    with path.open("rb") as stream:
        head = stream.read(16)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _with_frames(TiffReader(path, limits))
    if head[:2] == b"\xff\xd8" or head[:8] == b"\x89PNG\r\n\x1a\n" or head[:2] == b"BM":
        return _with_frames(RasterReader(path, limits))
    known = path.suffix.lower().lstrip(".").upper()
    text = all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head)
    raise ImageError(f"not a {known} file: it begins with {'the text ' if text else ''}{head[:8]!r}")


def _with_frames(reader: FormatReader) -> ImageFile:
    """Raise ImageError where the file has no frame."""
    if not reader.frames:
        reader.close()
        raise ImageError("the file contains no image")
    return ImageFile(reader)


def _with_image_errors(action: Callable[[], T]) -> T:
    """Convert any error of a decoder to an ImageError of one line."""
    try:
        return action()
    except (ImageError, MemoryError):
        raise
    except PermissionError as error:
        raise ImageError("no read permission") from error
    except FileNotFoundError as error:
        raise ImageError("no such file (a broken link?)") from error
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    except Exception as error:  # decoders raise errors of many types
        text = " ".join(str(error).split())[:200]
        raise ImageError(f"damaged: cannot be decoded ({type(error).__name__}: {text})") from error
