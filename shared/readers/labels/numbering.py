"""Renumber the values of a label image."""

import numpy as np


def renumber(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumber (H, W) integers >= 0 to 0, 1, ... n in the smallest unsigned dtype; also return the n old values."""
    if values.dtype in (np.bool_, np.uint8, np.uint16):
        present = np.bincount(values.ravel()).nonzero()[0]
        names = present[present > 0]
        table = np.zeros(int(present.max(initial=0)) + 1, smallest_dtype(len(names)))
        table[names] = np.arange(1, len(names) + 1)
        return table[values.astype(np.uint16)], names
    names, inverse = np.unique(values, return_inverse=True)
    first = 0 if names[0] == 0 else 1
    return (inverse.reshape(values.shape) + first).astype(smallest_dtype(len(names))), names[names > 0]


def smallest_dtype(count: int) -> type[np.unsignedinteger]:
    """Return the smallest unsigned dtype that holds `count` instances."""
    return np.uint8 if count < 2**8 else np.uint16 if count < 2**16 else np.uint32
