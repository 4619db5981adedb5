"""Decode TIFF to frames (H, W, C): pages, time stacks, ImageJ hyperstacks, OME-TIFF.

The file's metadata names the axes. Y and X are the plane, C and S (samples) the channels. Every other axis (T, Z, R,
...) enumerates frames, as do the pages of a file whose metadata names no axes.
"""

import logging
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from shared.readers.decode.limits import DeclaredSize, Frame, Limits, check_size, drop_alpha
from shared.readers.decode.pixel_size import ome_pixel_sizes, tag_pixel_size
from shared.system.errors import ImageError

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its warnings become reasons of rejects

MAX_FRAMES = 1_000_000
"""Frames of one file."""


@dataclass(frozen=True)
class Stack:
    """One series of a file: an array with named axes, the trailing ones of which make up a page."""

    series: tifffile.TiffPageSeries
    axes: str
    shape: tuple[int, ...]
    page_axis: int
    """Position of the first axis within a page; the axes before it enumerate pages."""

    @property
    def pages_shape(self) -> tuple[int, ...]:
        """Lengths of the axes that enumerate pages."""
        return self.shape[: self.page_axis]

    @property
    def frame_axes(self) -> list[int]:
        """Positions of the axes that enumerate frames."""
        return [i for i, axis in enumerate(self.axes) if axis not in "YXCS"]

    def size(self, axis: str) -> int:
        """Length along an axis; 1 where the axis is missing."""
        return math.prod(n for a, n in zip(self.axes, self.shape, strict=True) if a == axis)


class TiffReader:
    """Random access to the frames of a TIFF."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.size = path, path.stat().st_size
        check_pages(path, self.size)
        self.tif = tifffile.TiffFile(path, _multifile=False)
        try:
            self._index(limits)
        except BaseException:
            self.tif.close()
            raise

    def _index(self, limits: Limits) -> None:
        if self.tif.pages.first.photometric == tifffile.PHOTOMETRIC.SEPARATED:
            raise ImageError("a CMYK TIFF; save it as RGB")
        self.frames: list[Frame] = []
        self._where: list[tuple[Stack, tuple[int, ...]]] = []
        scales = ome_pixel_sizes(self.tif.ome_metadata) if self.tif.is_ome else []
        for number, series in enumerate(self.tif.series):
            scale = scales[min(number, len(scales) - 1)] if scales else tag_pixel_size(self.tif, series.keyframe)
            self._add(_stack(series), scale, limits)
        declared = int((self.tif.imagej_metadata or {}).get("images", 1)) if self.tif.is_imagej else 1
        if declared > sum(stack.size("C") for stack, _ in self._where):
            raise ImageError(f"truncated: its header declares {declared} planes, the file has fewer")

    def _add(self, stack: Stack, scale: float | None, limits: Limits) -> None:
        """Check the size of one series, and list its frames."""
        channels = stack.size("C") * stack.size("S")
        if stack.series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE:
            channels = 3
        declared = DeclaredSize(stack.size("Y"), stack.size("X"), channels, np.dtype(stack.series.dtype).itemsize)
        counts = tuple(stack.shape[i] for i in stack.frame_axes)
        if len(self.frames) + math.prod(counts) > MAX_FRAMES:
            raise ImageError(f"declares {math.prod(counts)} frames; the limit is {MAX_FRAMES}")
        check_size(declared, self._stored(stack) // max(1, math.prod(counts)), limits)
        for number, where in enumerate(np.ndindex(*counts)):
            if any(page is not None for page in self._pages(stack, where)):
                self.frames.append(declared.frame(scale, number))
                self._where.append((stack, where))

    def _stored(self, stack: Stack) -> int:
        """Count the bytes of image data of a series. Raises ImageError where the file ends before them."""
        series, total = stack.series, 0
        if self._is_contiguous(stack):
            nbytes = math.prod(stack.shape) * np.dtype(series.dtype).itemsize
            self._check_within(series.dataoffset or 0, nbytes)
            return nbytes
        for page in series.pages:
            if page is None:
                continue
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
                self._check_within(offset, count)
            stored = sum(page.databytecounts)
            bits = series.keyframe.bitspersample * series.keyframe.size
            if series.keyframe.compression == tifffile.COMPRESSION.NONE and stored < bits // 8:
                raise ImageError(f"truncated: a page has {stored} bytes of image data, its header requires {bits // 8}")
            total += stored
        return total

    def _check_within(self, offset: int, count: int) -> None:
        if offset + count > self.size:
            raise ImageError(f"truncated: image data should reach byte {offset + count}, the file has {self.size}")

    def _is_contiguous(self, stack: Stack) -> bool:
        """Whether one page describes many that follow it without headers, as in large stacks of ImageJ."""
        return len(stack.series.pages) != math.prod(stack.pages_shape) and stack.series.dataoffset is not None

    def _selection(self, stack: Stack, where: tuple[int, ...]) -> list[slice]:
        """Slices along all axes for the frame at position `where` of the frame axes."""
        picked = dict(zip(stack.frame_axes, where, strict=True))
        return [slice(picked[i], picked[i] + 1) if i in picked else slice(None) for i in range(len(stack.axes))]

    def _pages(self, stack: Stack, where: tuple[int, ...]) -> list[tifffile.TiffPage | tifffile.TiffFrame | None]:
        """Pages of one frame, in the order of the axes that enumerate pages; None for a page in another file."""
        if self._is_contiguous(stack):
            return [stack.series.keyframe]
        selection = tuple(self._selection(stack, where)[: stack.page_axis])
        numbers = np.arange(math.prod(stack.pages_shape)).reshape(stack.pages_shape)[selection]
        return [stack.series.pages[int(number)] for number in numbers.ravel()]

    def read(self, index: int) -> tuple[np.ndarray, list[str]]:
        """Decode one frame (H, W, C) of any dtype; also return remarks."""
        stack, where = self._where[index]
        selection = tuple(self._selection(stack, where))
        if self._is_contiguous(stack):
            dtype = np.dtype(stack.series.dtype).newbyteorder(self.tif.byteorder)
            whole = np.memmap(self.path, dtype, "r", offset=stack.series.dataoffset or 0, shape=stack.shape)
            values = np.array(whole[selection])
        else:
            pages = self._pages(stack, where)
            if any(page is None for page in pages):
                raise ImageError("a channel of this image is in another file, which is missing")
            page_shape = stack.shape[stack.page_axis :]
            within_page = selection[stack.page_axis :]
            planes = [page.asarray(maxworkers=1).reshape(page_shape)[within_page] for page in pages if page]
            lengths = [len(range(n)[s]) for n, s in zip(stack.pages_shape, selection, strict=False)]
            values = np.stack(planes).reshape(*lengths, *planes[0].shape)
        return self._finish(stack, values)

    def close(self) -> None:
        """Close the file."""
        self.tif.close()

    def _finish(self, stack: Stack, values: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Order the axes as Y, X, channels; apply the palette; drop alpha."""
        order = sorted(range(len(stack.axes)), key=lambda i: ("YXCS".find(stack.axes[i]) % 5, i))
        image = values.transpose(order).reshape(stack.size("Y"), stack.size("X"), -1)
        page, remarks = stack.series.keyframe, list[str]()
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
            return apply_palette(image[..., 0], page.colormap), remarks
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            remarks.append("0 is white according to its header; the stored values are kept")
        samples = stack.size("S")
        flagged = bool(page.extrasamples) and page.extrasamples[-1] in (1, 2)
        rgba = (
            page.photometric == tifffile.PHOTOMETRIC.RGB
            and samples == 4
            and image[..., -1].min() == image[..., -1].max()
        )
        if samples == image.shape[2] > 1 and (flagged or rgba):
            image = drop_alpha(image, remarks)
        return image, remarks


def check_pages(path: Path, size: int) -> None:
    """Raise ImageError unless the file contains every page's directory: tifffile ignores missing ones."""
    with path.open("rb") as stream:
        head = stream.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\0", b"\0+")
        count_format, entry, offset_format = ("Q", 20, "Q") if big else ("H", 12, "I")
        if len(head) < 16:
            raise ImageError(f"truncated: a TIFF of {size} bytes")
        (offset,) = struct.unpack_from(order + offset_format, head, 8 if big else 4)
        seen: set[int] = set()
        while offset and offset not in seen:
            seen.add(offset)
            width = struct.calcsize(count_format)
            stream.seek(offset)
            raw = stream.read(width)
            end = offset + width + (struct.unpack(order + count_format, raw)[0] * entry if len(raw) == width else size)
            if end + struct.calcsize(offset_format) > size:
                raise ImageError(f"truncated: the header of page {len(seen)} lies beyond the end ({size} bytes)")
            stream.seek(end)
            (offset,) = struct.unpack(order + offset_format, stream.read(struct.calcsize(offset_format)))


def _stack(series: tifffile.TiffPageSeries) -> Stack:
    axes, shape = series.get_axes(False), tuple(series.get_shape(False))
    size = math.prod(series.keyframe.shape)
    page_axis = next((i for i in range(len(shape) + 1) if math.prod(shape[i:]) == size), None)
    if axes.count("Y") != 1 or axes.count("X") != 1 or page_axis is None:
        raise ImageError(f"holds an array with the axes {axes} and shape {shape}, which is not an image")
    return Stack(series, axes, shape, page_axis)


def apply_palette(index: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Look up an index image (H, W) in (3, 256) uint16 colours: (H, W, 3) uint8, or (H, W, 1) where all are grey."""
    table = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
    image = table.T[index]
    grey = np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2])
    return image[..., :1] if grey else image
