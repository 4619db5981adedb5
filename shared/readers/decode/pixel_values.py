"""Check pixels, and convert them to a dtype that an ImageSet stores, without changing any value.

- uint8, uint16, float32 are kept. bool becomes uint8 0 and 1, float16 becomes float32.
- Other integers become uint8 or uint16 where every value fits, else float32 (up to 2**24), else float64.
- float64 becomes float32 where that changes no value, else it is kept. Complex numbers are rejected.
- An image with a single NaN or infinite pixel is rejected: its owner has to decide on the replacement.
- An image whose every channel is constant is rejected.
"""

import numpy as np

from shared.system.errors import ImageError


def to_storable(image: np.ndarray) -> np.ndarray:
    """Convert (H, W, C) of any dtype to the same values as uint8, uint16, float32 or float64.

    Raises ImageError with the reason for values that cannot be stored or carry no information.
    """
    kind, dtype = image.dtype.kind, image.dtype
    if kind == "c":
        raise ImageError(f"complex pixels ({dtype}); save magnitude or phase as a real image")
    if kind not in "buif":
        raise ImageError(f"pixels of type {dtype}; save integers or floating-point numbers")
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
    magnitude = max(-low, high)
    if magnitude > 2**53:
        raise ImageError(f"values up to {magnitude} do not fit a 64-bit float; rescale them")
    return image.astype(np.float32 if magnitude <= 2**24 else np.float64)
