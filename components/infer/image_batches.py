"""Read images ahead, a batch at a time, while the network computes."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from shared.artifacts.annotation import Annotation, ImageClass
from shared.artifacts.image_set import ImageEntry, ImageReader
from shared.system.devices import threads
from shared.system.errors import UserError
from shared.system.parallel import in_order

_BATCH_BYTES = 2**25
"""Bytes of the images of a batch, unless a single one is larger."""
_AHEAD_BYTES = 2**27
"""Bytes of the images that are read ahead."""
_MAX_READERS = 4
"""Threads that read and decode."""
T = TypeVar("T")


@dataclass
class ImageInWork:
    """An image on its way through the models, and what they have found so far."""

    number: int
    """Position in the set, from 1."""
    entry: ImageEntry
    image: np.ndarray
    """(H, W, C); empty where it could not be read."""
    failure: str = ""
    """Why the image cannot be predicted; empty while it can."""
    image_class: ImageClass | None = None
    boxes: list[Annotation] | None = None
    full_tiles: int = 0
    """Tiles in which the detector may have missed objects, because it used all its queries."""
    maps: np.ndarray | None = None
    """(M, H, W) float32 in [0, 1], of the segmentor."""
    shown: bool = False
    """Whether the page has a picture of it."""


class WaitingTime:
    """Measure how long a loop waits for its items."""

    def __init__(self) -> None:
        self.start, self.waited = time.monotonic(), 0.0

    def metrics(self) -> dict[str, float]:
        """Return the time since the beginning in s, and the share of it that was spent waiting."""
        elapsed = max(time.monotonic() - self.start, 1e-9)
        return {"seconds": elapsed, "waiting_share": self.waited / elapsed}

    def __call__(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items."""
        iterator = iter(items)
        while True:
            start = time.monotonic()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.waited += time.monotonic() - start
            yield item


def batches(images: ImageReader, max_images: int) -> Iterator[list[ImageInWork]]:
    """Read all images in the order of their keys, `max_images` at a time, in threads that are ahead of the caller."""
    planned = _plan(list(enumerate(images.sorted_entries(), 1)), max_images)
    with ThreadPoolExecutor(min(_MAX_READERS, threads()), thread_name_prefix="read") as pool:
        yield from in_order(pool, partial(_read, images), planned, _batch_bytes, _AHEAD_BYTES)


def _plan(numbered: list[tuple[int, ImageEntry]], max_images: int) -> Iterator[list[tuple[int, ImageEntry]]]:
    batch: list[tuple[int, ImageEntry]] = []
    for item in numbered:
        if batch and (len(batch) >= max_images or _batch_bytes([*batch, item]) > _BATCH_BYTES):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _batch_bytes(batch: list[tuple[int, ImageEntry]]) -> int:
    return sum(e.height * e.width * e.channels * np.dtype(e.dtype).itemsize for _, e in batch)


def _read(images: ImageReader, batch: list[tuple[int, ImageEntry]]) -> list[ImageInWork]:
    found = []
    for number, entry in batch:
        image, failure = np.zeros((0, 0, entry.channels), entry.dtype), ""
        try:
            image = images.read(entry.key)
        except Exception as error:  # of any decoder; the image is listed, the others go on
            failure = f"cannot be read: {reason(error)}"
        found.append(ImageInWork(number, entry, image, failure))
    return found


def reason(error: Exception) -> str:
    """Say in one line what an error is about."""
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
