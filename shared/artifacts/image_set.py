"""ImageSet: images with their bit depth and channels, in tar shards with an index.

An image array is (height, width, channels) in its own dtype, channels >= 1, everywhere in this project.
"""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from pydantic import BaseModel, ConfigDict

from shared.artifacts.kinds import ImageSet
from shared.artifacts.manifest import read_manifest
from shared.artifacts.shards import Member, ShardWriter, read_jsonl, read_member, write_jsonl
from shared.system.errors import ArtifactError

INDEX = "index.jsonl"


@dataclass(frozen=True)
class Packed:
    """An image as it goes into a shard: made side by side in threads, then written in order."""

    extension: str
    data: bytes
    shape: tuple[int, int, int]
    """Height, width, channels."""
    dtype: str
    sha256: str


class ImageEntry(BaseModel):
    """One line of `index.jsonl`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str
    """Unique in the set, without dots, made from the relative path."""
    source: str
    """Path relative to the source, `#frame` behind it for one of several images in a file."""
    member: Member
    height: int
    """px"""
    width: int
    """px"""
    channels: int
    dtype: str
    """numpy's name: uint8, uint16, float32, ..."""
    um_per_px: float | None = None
    """Micrometres a pixel, where the file says so."""
    group: str = ""
    """Plate, well or movie: what must not be split between training and test."""
    split: str = "train"
    """train, val or test."""
    sha256: str
    """Of the pixels: dtype, shape and bytes."""


class ImageWriter:
    """Writes the payload of an ImageSet. Keys must be added in ascending order.

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

    def add(
        self,
        key: str,
        image: np.ndarray,
        *,
        source: str,
        um_per_px: float | None = None,
        group: str = "",
        split: str = "train",
    ) -> ImageEntry:
        """Append one image: (H, W, C), uint8, uint16 or floating point."""
        return self.add_packed(key, pack(image), source=source, um_per_px=um_per_px, group=group, split=split)

    def add_packed(
        self,
        key: str,
        packed: Packed,
        *,
        source: str,
        um_per_px: float | None = None,
        group: str = "",
        split: str = "train",
    ) -> ImageEntry:
        """Append one image that `pack` made ready."""
        if self.entries and key <= self.entries[-1].key:
            raise ValueError(f"key {key!r} after {self.entries[-1].key!r}: keys must be added in ascending order")
        entry = ImageEntry(
            key=key,
            source=source,
            member=self._shards.add(f"{key}.image.{packed.extension}", packed.data),
            height=packed.shape[0],
            width=packed.shape[1],
            channels=packed.shape[2],
            dtype=packed.dtype,
            um_per_px=um_per_px,
            group=group,
            split=split,
            sha256=packed.sha256,
        )
        self.entries.append(entry)
        return entry


class ImageReader:
    """Random access to an ImageSet whose contents were checked before (`shared.artifacts.manifest.verify`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.skipped = read_manifest(folder, ImageSet).skipped
        self.entries = {entry.key: entry for entry in read_jsonl(folder / INDEX, ImageEntry)}

    def __len__(self) -> int:
        return len(self.entries)

    def keys(self, *splits: str) -> list[str]:
        """Keys in ascending order, of the named splits only where any is named."""
        return sorted(key for key, entry in self.entries.items() if not splits or entry.split in splits)

    def pixels(self, key: str) -> int:
        """Height times width of one image, px."""
        return self.entries[key].height * self.entries[key].width

    def read(self, key: str) -> np.ndarray:
        """One image: (H, W, C) in its own dtype."""
        entry = self.entries[key]
        image = decode(read_member(self.folder, entry.member))
        if image.shape != (entry.height, entry.width, entry.channels):
            raise ArtifactError(
                f"{self.folder}: image {key!r} is {image.shape}, its index says otherwise; ingest again"
            )
        return image

    def __iter__(self) -> Iterator[tuple[ImageEntry, np.ndarray]]:
        for key in self.keys():
            yield self.entries[key], self.read(key)


def median_um_per_px(reader: ImageReader, keys: list[str]) -> float | None:
    """Median pixel size of those images whose file told it; None where none did."""
    known = [scale for key in keys if (scale := reader.entries[key].um_per_px)]
    return float(np.median(known)) if known else None


def pack(image: np.ndarray) -> Packed:
    """Encode and hash an image (H, W, C)."""
    extension, data = encode(image)
    height, width, channels = image.shape
    return Packed(extension, data, (height, width, channels), str(image.dtype), pixel_hash(image))


def encode(image: np.ndarray) -> tuple[str, bytes]:
    """Lossless bytes of an image (H, W, C): PNG where PNG can hold it, else TIFF. Returns extension and bytes."""
    if image.ndim != 3:
        raise ValueError(f"an image is (height, width, channels), not {image.shape}")
    if image.dtype in (np.uint8, np.uint16) and image.shape[2] in (1, 3):
        plane = image.squeeze(2) if image.shape[2] == 1 else image
        return "png", bytes(imagecodecs.png_encode(np.ascontiguousarray(plane), 1))
    stream = io.BytesIO()
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    tifffile.imwrite(
        stream,
        planes,
        photometric="minisblack",
        planarconfig="separate" if len(planes) > 1 else None,
        compression="zlib",
        metadata=None,
        software="",
    )
    return "tif", stream.getvalue()


def decode(data: bytes) -> np.ndarray:
    """The image (H, W, C) that `encode` made bytes of."""
    if data[:4] == b"\x89PNG":
        image = imagecodecs.png_decode(data)
        return image if image.ndim == 3 else image[..., None]
    planes = tifffile.imread(io.BytesIO(data))
    return np.ascontiguousarray((planes if planes.ndim == 3 else planes[None]).transpose(1, 2, 0))


def pixel_hash(image: np.ndarray) -> str:
    """sha256 over dtype, shape and pixels."""
    digest = hashlib.sha256(f"{image.dtype} {image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
