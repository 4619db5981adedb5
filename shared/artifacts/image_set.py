"""ImageSet: images with their bit depth and channels, in tar shards with an index.

An image array is (height, width, channels) in its own dtype, channels >= 1, everywhere in this project.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Required, TypedDict, Unpack

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from shared.artifacts.image_codec import EncodedImage, decode_image, encode_image, extension_of
from shared.artifacts.keys import Key
from shared.artifacts.kinds import ImageSet
from shared.artifacts.manifest import read_manifest
from shared.artifacts.payload import INDEX, unreadable
from shared.artifacts.shards import Member, ShardWriter, check_ascending, read_jsonl, read_member, write_jsonl
from shared.imaging.resize import enlarge
from shared.system.errors import ArtifactError

MAX_MAGNIFICATION = 8
"""Largest factor by which stored images are enlarged."""


class ImageEntry(BaseModel):
    """One line of `index.jsonl`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: Key
    """Unique in the set, without dots, made from the relative path."""
    source: str
    """Path relative to the source; `#frame` is appended for one of several images in a file."""
    member: Member
    height: PositiveInt
    """px"""
    width: PositiveInt
    """px"""
    channels: PositiveInt
    dtype: str
    """numpy's name: uint8, uint16, float32, ..."""
    um_per_px: float | None = None
    """Pixel size in micrometres; None where the file does not state it."""
    group: str = ""
    """Plate, well or movie: images of one group belong to one split."""
    split: str = "train"
    """train, val or test."""
    sha256: str
    """Of the stored pixels: dtype, shape and bytes."""
    magnification: int = Field(default=1, ge=1, le=MAX_MAGNIFICATION)
    """Factor by which the stored image is enlarged when it is read. Height, width and pixel size hold after it."""

    def enlarged(self, factor: int) -> "ImageEntry":
        """Describe the image, which is not enlarged, as it is after it."""
        scale = None if self.um_per_px is None else self.um_per_px / factor
        sizes = {"height": self.height * factor, "width": self.width * factor}
        return self.model_copy(update={**sizes, "um_per_px": scale, "magnification": factor})

    def stored(self) -> "ImageEntry":
        """Describe the image as it is stored, and was in its file; itself where it is not enlarged."""
        factor = self.magnification
        if factor == 1:
            return self
        scale = None if self.um_per_px is None else self.um_per_px * factor
        sizes = {"height": self.height // factor, "width": self.width // factor}
        return self.model_copy(update={**sizes, "um_per_px": scale, "magnification": 1})


class ImageMetadata(TypedDict, total=False):
    """Fields of an `ImageEntry` that the pixels do not determine."""

    source: Required[str]
    um_per_px: float | None
    group: str
    split: str


class ImageWriter:
    """Write the payload of an ImageSet. Keys must be added in ascending order.

    >>> with ImageWriter(folder) as writer:
    ...     writer.add("a", image, source="a.tif")
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.entries: list[ImageEntry] = []
        self._shards = ShardWriter(folder, "images")

    def __enter__(self) -> "ImageWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._shards.close()
        if kind is None:
            write_jsonl(self.folder / INDEX, self.entries)

    def add(self, key: str, image: np.ndarray | EncodedImage, **metadata: Unpack[ImageMetadata]) -> ImageEntry:
        """Append one image: (H, W, C), uint8, uint16 or floating point, or encoded beforehand."""
        check_ascending(key, self.entries[-1].key if self.entries else None)
        encoded = image if isinstance(image, EncodedImage) else encode_image(image)
        height, width, channels = encoded.shape
        entry = ImageEntry(
            key=key,
            member=self._shards.add(f"{key}.image.{encoded.extension}", encoded.data),
            height=height,
            width=width,
            channels=channels,
            dtype=encoded.dtype,
            sha256=encoded.sha256,
            **metadata,
        )
        self.entries.append(entry)
        return entry

    def copy(self, reader: "ImageReader", key: str) -> ImageEntry:
        """Append an image of another set, byte for byte, with all that its entry says."""
        check_ascending(key, self.entries[-1].key if self.entries else None)
        entry = reader.entries[key]
        data = read_member(reader.folder, entry.member)
        member = self._shards.add(f"{key}.image.{extension_of(data)}", data)
        self.entries.append(entry.model_copy(update={"member": member}))
        return self.entries[-1]


class ImageReader:
    """Random access to an ImageSet whose contents were verified before (`shared.artifacts.manifest.verify`)."""

    def __init__(self, folder: Path, *, sealed: bool = True) -> None:
        """Read the index. sealed: False for a payload that this process wrote and that has no manifest yet."""
        self.folder = folder
        self.skipped = read_manifest(folder, ImageSet).skipped if sealed else None
        self.entries = {entry.key: entry for entry in read_jsonl(folder / INDEX, ImageEntry)}

    def __len__(self) -> int:
        return len(self.entries)

    def keys(self, *splits: str) -> list[str]:
        """Keys of the named splits, of all splits where none is named; ascending."""
        return sorted(key for key, entry in self.entries.items() if not splits or entry.split in splits)

    def sorted_entries(self) -> list[ImageEntry]:
        """Return the entries of all images, keys ascending."""
        return [self.entries[key] for key in self.keys()]

    def pixel_count(self, key: str) -> int:
        """Height times width of one image."""
        return self.entries[key].height * self.entries[key].width

    def read(self, key: str) -> np.ndarray:
        """Read one image, enlarged by its magnification: (H, W, C) in its own dtype."""
        return enlarge(self.read_stored(key), self.entries[key].magnification)

    def read_stored(self, key: str) -> np.ndarray:
        """Read one image as it is stored: (H, W, C) in its own dtype."""
        entry = self.entries[key].stored()
        expected = (entry.height, entry.width, entry.channels)
        with unreadable(self.folder / entry.member.shard):
            image = decode_image(read_member(self.folder, entry.member), expected[:2])
        if image.shape != expected:
            raise ArtifactError(
                f"{self.folder}: image {key!r} is {image.shape}, its index has {expected}; ingest again"
            )
        return image

    def __iter__(self) -> Iterator[tuple[ImageEntry, np.ndarray]]:
        for key in self.keys():
            yield self.entries[key], self.read(key)


def magnification_of(reader: ImageReader, keys: list[str]) -> int:
    """Factor by which most of the images are enlarged when they are read."""
    counts = Counter(reader.entries[key].magnification for key in keys)
    return counts.most_common(1)[0][0] if counts else 1


def median_um_per_px(reader: ImageReader, keys: list[str]) -> float | None:
    """Median pixel size in micrometres of the images whose files state one; None where none does."""
    known = [scale for key in keys if (scale := reader.entries[key].um_per_px)]
    return float(np.median(known)) if known else None
