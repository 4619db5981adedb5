"""Keep decoded images in memory, up to a number of bytes."""

from collections import OrderedDict

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.imaging.normalise import Normalisation

CACHE_BYTES = 2**30


class ImageCache:
    """Decoded images in their own dtype with their normalisation limits, at most `limit` bytes of them.

    The least recently used go first. The image in hand is always kept, whatever its size.
    """

    def __init__(self, reader: ImageReader, normalisation: Normalisation, limit: int = CACHE_BYTES) -> None:
        self.reader, self.normalisation, self.limit = reader, normalisation, limit
        self.bytes = 0
        """Bytes held."""
        self._items: OrderedDict[str, tuple[np.ndarray, list[tuple[float, float]]]] = OrderedDict()

    def get(self, key: str) -> tuple[np.ndarray, list[tuple[float, float]]]:
        """Image (H, W, C) and the limits that `Normalisation.apply` takes."""
        if key in self._items:
            self._items.move_to_end(key)
            return self._items[key]
        image = self.reader.read(key)
        while self._items and self.bytes + image.nbytes > self.limit:
            _, (old, _) = self._items.popitem(last=False)
            self.bytes -= old.nbytes
        self._items[key] = image, self.normalisation.limits(image)
        self.bytes += image.nbytes
        return self._items[key]
