"""Turn an image as the orientation of its Exif metadata says (CIPA DC-008, tag 0x0112), as viewers do."""

import struct

import numpy as np

_ORIENTATION_TAG, _SHORT = 0x0112, 3
_FLIPPED_AXES = {1: (), 2: (1,), 3: (0, 1), 4: (0,), 5: (), 6: (1,), 7: (0, 1), 8: (0,)}
"""Orientation -> axes that are flipped, after rows and columns are exchanged from 5 on."""


def exif_orientation(exif: bytes | None) -> int:
    """Orientation, 1 to 8, in the first directory of Exif metadata; 1, as stored, where there is none."""
    if exif is None or exif[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    order = "<" if exif[:2] == b"II" else ">"
    try:
        (offset,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, offset)
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == _ORIENTATION_TAG:
                return value if kind == _SHORT and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def is_transposed(orientation: int) -> bool:
    """Whether turning exchanges height and width."""
    return orientation >= 5


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a stored image (H, W, C): a view of what a viewer shows, (H, W, C) or (W, H, C)."""
    if is_transposed(orientation):
        image = image.transpose(1, 0, 2)
    return np.flip(image, _FLIPPED_AXES[orientation])
