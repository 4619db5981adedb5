"""Plain image files -> image arrays (H, W, C), one at a time, checked before and after they are decoded.

What a file says of its size is compared with the bytes it has before anything is allocated. Every fault is an
`ImageError` whose text is the reason alone; the caller knows the file.

What happens to pixels, so that nothing is lost unseen (`storable`):
- uint8, uint16, float32 are kept. bool becomes uint8 0 and 1, float16 becomes float32.
- Other integers become uint8 or uint16 where every value fits, else float32 (up to 2**24), else float64.
- float64 becomes float32 where that changes no value, else it is kept. Complex numbers are rejected.
- An image with a single NaN or infinite pixel is rejected: what to put there is for its owner to say.
- An image whose every channel is constant is rejected.
- Alpha is dropped; where it is not constant, a remark says so. Palettes become grey or RGB.
- Orientation tags are ignored: pixels stay as they are stored.
"""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np

from shared.readers.decode import raster as decode_raster
from shared.readers.decode import tiff as decode_tiff
from shared.readers.decode import vendor as decode_vendor
from shared.readers.decode.limits import Frame, Limits
from shared.system.errors import ImageError

__all__ = ["EXTENSIONS", "Frame", "ImageFile", "Limits", "open_image", "storable"]

T = TypeVar("T")
PLAIN = {".tif", ".tiff", ".btf", ".tf8", ".lsm", ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib"}
EXTENSIONS = PLAIN | decode_vendor.EXTENSIONS
"""Lower-case endings of files that are taken for images."""


class Reader(Protocol):
    """What stands behind an `ImageFile`."""

    frames: list[Frame]

    def read(self, index: int) -> tuple[np.ndarray, list[str]]:
        """(H, W, C) of any dtype, and remarks."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


@dataclass
class ImageFile:
    """An open image file whose header was checked.

    >>> with open_image(path, Limits()) as file:
    ...     for index in range(len(file.frames)):
    ...         image, remarks = file.read(index)
    """

    reader: Reader
    frames: list[Frame] = field(init=False)
    """One for each image in the file, in order."""

    def __post_init__(self) -> None:
        self.frames = self.reader.frames

    def read(self, index: int) -> tuple[np.ndarray, list[str]]:
        """Pixels of one frame as they are stored, (H, W, C) of any dtype, and remarks about them."""
        return _guarded(lambda: self.reader.read(index))

    def close(self) -> None:
        """Let go of the file."""
        self.reader.close()

    def __enter__(self) -> "ImageFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_image(path: Path, limits: Limits) -> ImageFile:
    """Open a file and check its header. What it is, its first bytes say; only vendor formats go by their ending.

    Raises ImageError with the reason alone.
    """
    return _guarded(lambda: _open(path, limits))


def _open(path: Path, limits: Limits) -> ImageFile:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("not a plain file")
    if status.st_size == 0:
        raise ImageError("the file is empty (0 bytes)")
    if not os.access(path, os.R_OK):
        raise PermissionError
    if path.suffix.lower() in decode_vendor.EXTENSIONS:
        return _checked(decode_vendor.VendorReader(path, limits))
    with path.open("rb") as stream:
        head = stream.read(16)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _checked(decode_tiff.TiffReader(path, limits))
    if head[:2] == b"\xff\xd8" or head[:8] == b"\x89PNG\r\n\x1a\n" or head[:2] == b"BM":
        return _checked(decode_raster.RasterReader(path, limits))
    known = path.suffix.lower().lstrip(".").upper()
    text = all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head)
    raise ImageError(f"not a {known} file: it begins with {'the text ' if text else ''}{head[:8]!r}")


def _checked(reader: Reader) -> ImageFile:
    if not reader.frames:
        reader.close()
        raise ImageError("the file holds no image")
    return ImageFile(reader)


def _guarded(action: Callable[[], T]) -> T:
    """Turn whatever a decoder throws at a broken file into one line for the list of rejects."""
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
    except Exception as error:  # decoders raise whatever they like
        text = " ".join(str(error).split())[:200]
        raise ImageError(f"damaged: cannot be decoded ({type(error).__name__}: {text})") from error


def storable(image: np.ndarray) -> np.ndarray:
    """(H, W, C) of any dtype -> the same values as uint8, uint16, float32 or float64, checked (see the module)."""
    kind, dtype = image.dtype.kind, image.dtype
    if kind == "c":
        raise ImageError(f"complex pixels ({dtype}); save magnitude or phase as a real image")
    if kind not in "buif":
        raise ImageError(f"pixels of type {dtype} are no numbers an image can have")
    if kind == "f":
        image = _floats(image)
    elif kind == "b":
        image = image.astype(np.uint8)
    elif dtype not in (np.uint8, np.uint16):
        image = _integers(image)
    if all(plane.min() == plane.max() for plane in np.moveaxis(image, 2, 0)):
        raise ImageError(f"constant: every pixel is {', '.join(f'{value:g}' for value in image[0, 0][:4])}")
    return np.ascontiguousarray(image, image.dtype.newbyteorder("="))


def _floats(image: np.ndarray) -> np.ndarray:
    bad = image.size - int(np.count_nonzero(np.isfinite(image)))
    if bad:
        raise ImageError(f"{bad} of {image.size} pixels are NaN or infinite; replace them, e.g. by the background")
    with np.errstate(over="ignore"):
        single = image.astype(np.float32)
    return single if image.dtype.itemsize <= 4 or np.array_equal(single, image) else image.astype(np.float64)


def _integers(image: np.ndarray) -> np.ndarray:
    low, high = int(image.min()), int(image.max())
    if low >= 0 and high < 2**16:
        return image.astype(np.uint8 if image.dtype.itemsize == 1 else np.uint16)
    top = max(-low, high)
    if top > 2**53:
        raise ImageError(f"values up to {top} do not fit a 64-bit float; rescale them")
    return image.astype(np.float32 if top <= 2**24 else np.float64)
