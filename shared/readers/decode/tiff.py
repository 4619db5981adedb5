"""Decode TIFF to frames (H, W, C): pages, time stacks, ImageJ hyperstacks, OME-TIFF.

The file's metadata names the axes. Y and X are the plane, C and S (samples) the channels. Every other axis (T, Z, R,
...) enumerates frames, as do the pages of a file whose metadata names no axes. A file may hold several series: pages of
different sizes or types, or several images of OME-TIFF; their frames are numbered through the file. Thumbnails, reduced
copies, and a slide's label and overview are left out, with a remark.
"""

import logging
import math
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile

from shared.readers.decode.limits import DeclaredSize, Frame, Limits, check_size, drop_alpha, with_samples
from shared.readers.decode.pixel_size import ome_other_files, ome_pixel_sizes, tag_pixel_size
from shared.readers.decode.tiff_series import (
    NotTaken,
    Stack,
    check_colours,
    describe,
    is_secondary,
    samples_of,
    stack_of,
)
from shared.system.errors import ImageError

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # its warnings become reasons of rejects

MAX_FRAMES = 1_000_000
"""Frames of one file."""


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
        self.frames: list[Frame] = []
        self._where: list[tuple[Stack, tuple[int, ...]]] = []
        self._remarks: list[str] = []
        self._counted = 0
        scales = ome_pixel_sizes(self.tif.ome_metadata) if self.tif.is_ome else []
        others = ome_other_files(self.tif.ome_metadata, self.path.name) if self.tif.is_ome else []
        if others:
            self._remarks.append(f"parts of it are in other files, which are read as images of their own: {others[0]}")
        wanted = [series for series in self.tif.series if not is_secondary(series)] or self.tif.series[:1]
        for number, series in enumerate(self.tif.series):
            if series not in wanted:
                self._remarks.append(f"left out: {describe(series)}")
                continue
            self._remarks += [f"left out: {describe(level)}" for level in series.levels[1:]]
            scale = scales[min(number, len(scales) - 1)] if scales else tag_pixel_size(self.tif, series.keyframe)
            try:
                self._add(series, scale, limits)
            except NotTaken as error:
                if len(wanted) == 1:
                    raise
                self._remarks.append(f"left out: {describe(series)}: {error}")
        if not self.frames and self._remarks:
            raise ImageError(self._remarks[-1])
        declared = int((self.tif.imagej_metadata or {}).get("images", 1)) if self.tif.is_imagej else 1
        found = sum(stack.size("C") for stack, _ in self._where)
        if declared > found and len(self.tif.pages) == 1:  # one header for all planes, of which some are missing
            raise ImageError(f"truncated: its header declares {declared} planes, the file has fewer")
        if declared > found:
            self._remarks.append(f"its header declares {declared} planes, the file has {found}")

    def _add(self, series: tifffile.TiffPageSeries, scale: float | None, limits: Limits) -> None:
        """Check the colours and the size of one series, and list its frames. Raises NotTaken for what is no image."""
        try:
            check_colours(series.keyframe)
            stack = stack_of(series)
            declared = self._declared(stack)
            check_size(declared, None, limits)  # before its pages are counted, which may reject the whole file
        except ImageError as error:
            raise NotTaken(str(error)) from error
        if stack.channels_last:
            self._remarks.append(f"its last axis is read as {stack.size('C')} channels: they are last, without a name")
        orientation = series.keyframe.tags.valueof("Orientation", 1)
        if orientation in range(2, 9):
            self._remarks.append(f"its orientation ({orientation}) is not applied; the pixels stay as they are stored")
        samples, has_alpha = samples_of(stack)
        counts = tuple(stack.shape[i] for i in stack.frame_axes)
        if len(self.frames) + math.prod(counts) > MAX_FRAMES:
            raise ImageError(f"declares {math.prod(counts)} frames; the limit is {MAX_FRAMES}")
        check_size(declared, self._stored(stack) // max(1, math.prod(counts)), limits)
        for number, where in enumerate(np.ndindex(*counts), self._counted):
            if any(page is not None for page in self._pages(stack, where)):
                frame = with_samples(declared.frame(scale, number), samples, has_alpha)
                self.frames.append(replace(frame, place=stack.place(where)))
                self._where.append((stack, where))
        self._counted += math.prod(counts)

    def _declared(self, stack: Stack) -> DeclaredSize:
        channels = stack.size("C") * stack.size("S")
        if stack.series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE:
            channels = 3
        return DeclaredSize(stack.size("Y"), stack.size("X"), channels, np.dtype(stack.series.dtype).itemsize)

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
            self._mend_byte_count(page, series.keyframe)
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
                self._check_within(offset, count)
            stored = sum(page.databytecounts)
            bits = series.keyframe.bitspersample * series.keyframe.size
            if series.keyframe.compression == tifffile.COMPRESSION.NONE and stored < bits // 8:
                raise ImageError(f"truncated: a page has {stored} bytes of image data, its header requires {bits // 8}")
            total += stored
        return total

    def _mend_byte_count(self, page: tifffile.TiffPage | tifffile.TiffFrame, keyframe: tifffile.TiffPage) -> None:
        """Correct the byte count of an uncompressed page in one piece, where all of its pixels are there."""
        row_bits = keyframe.bitspersample * keyframe.imagewidth * keyframe.samplesperpixel
        needed = (row_bits + 7) // 8 * keyframe.imagelength
        offsets, counts = page.dataoffsets, page.databytecounts
        if keyframe.compression != tifffile.COMPRESSION.NONE or len(offsets) != 1 or keyframe.is_tiled:
            return
        if counts[0] == needed or not offsets[0] or offsets[0] + needed > self.size or keyframe.planarconfig != 1:
            return
        remark = f"its header counts {counts[0]} bytes of pixels, but there are {needed}"
        page.databytecounts = (needed,)
        if remark not in self._remarks:
            self._remarks.append(remark)

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

    def read(self, index: int, *, raw: bool = False) -> tuple[np.ndarray, list[str]]:
        """Decode one frame (H, W, C) of any dtype; also return remarks, on the file with its first frame.

        raw: keep the indexes of a palette, and alpha; bits of which 0 is white are inverted.
        """
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
        image, remarks = self._finish(stack, values, raw)
        return image, [*(self._remarks if index == 0 else []), *remarks]

    def close(self) -> None:
        """Close the file."""
        self.tif.close()

    def _finish(self, stack: Stack, values: np.ndarray, raw: bool) -> tuple[np.ndarray, list[str]]:
        """Order the axes as Y, X, channels; apply the palette; drop alpha."""
        order = sorted(range(len(stack.axes)), key=lambda i: ("YXCS".find(stack.axes[i]) % 5, i))
        image = values.transpose(order).reshape(stack.size("Y"), stack.size("X"), -1)
        page, remarks = stack.series.keyframe, list[str]()
        if raw:
            is_inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and page.bitspersample == 1
            return (image == 0 if is_inverted else image), remarks
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
        while offset:
            if offset in seen:
                raise ImageError(f"damaged: after page {len(seen)} comes one that came before")
            if len(seen) > MAX_FRAMES:
                raise ImageError(f"has more than {MAX_FRAMES} pages")
            seen.add(offset)
            width = struct.calcsize(count_format)
            stream.seek(offset)
            raw = stream.read(width)
            end = offset + width + (struct.unpack(order + count_format, raw)[0] * entry if len(raw) == width else size)
            if end + struct.calcsize(offset_format) > size:
                raise ImageError(f"truncated: the header of page {len(seen)} lies beyond the end ({size} bytes)")
            stream.seek(end)
            (offset,) = struct.unpack(order + offset_format, stream.read(struct.calcsize(offset_format)))


def apply_palette(index: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Look up an index image (H, W) in (3, 256) uint16 colours: (H, W, 3) uint8, or (H, W, 1) where all are grey."""
    table = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
    image = table.T[index]
    grey = np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2])
    return image[..., :1] if grey else image
