"""TIFF: pages, time stacks, ImageJ hyperstacks, OME-TIFF, each as a list of frames (H, W, C).

Axes come from the file's own metadata. C and S (samples) become channels; Y and X the plane; every other axis
(T, Z, R, ...), and the pages of a file that says nothing about its axes, count frames.
"""

import logging
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from defusedxml import ElementTree

from shared.readers.decode.limits import Frame, Limits, check, drop_alpha
from shared.system.errors import ImageError

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it warns of ends up in our own reasons

MAX_FRAMES = 1_000_000
UM = {"um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0}
UM |= {"nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25_400.0, "å": 1e-4}
PLAUSIBLE_UM = (0.005, 10.0)
"""um per px that a bare resolution tag is believed: 2,540 dpi and finer. 72 or 300 dpi are a printer's."""


@dataclass(frozen=True)
class Stack:
    """One series of a file: an array with named axes, of which the trailing ones make up a page."""

    series: tifffile.TiffPageSeries
    axes: str
    shape: tuple[int, ...]
    inner: int
    """Number of leading axes; the product of their sizes is the number of pages."""

    @property
    def frame_axes(self) -> list[int]:
        """Positions of the axes that count frames."""
        return [i for i, axis in enumerate(self.axes) if axis not in "YXCS"]

    def size(self, axis: str) -> int:
        """Length along an axis, 1 where there is none."""
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
        scales = ome_scales(self.tif.ome_metadata) if self.tif.is_ome else []
        for number, series in enumerate(self.tif.series):
            scale = scales[min(number, len(scales) - 1)] if scales else resolution_scale(self.tif, series.keyframe)
            self._add(_stack(series), scale, limits)
        declared = int((self.tif.imagej_metadata or {}).get("images", 1)) if self.tif.is_imagej else 1
        if declared > sum(stack.size("C") for stack, _ in self._where):
            raise ImageError(f"truncated: its header declares {declared} planes, the file holds fewer")

    def _add(self, stack: Stack, scale: float | None, limits: Limits) -> None:
        """Check one series against the file, and list its frames."""
        channels = stack.size("C") * stack.size("S")
        if stack.series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE:
            channels = 3
        height, width, itemsize = stack.size("Y"), stack.size("X"), np.dtype(stack.series.dtype).itemsize
        counts = tuple(stack.shape[i] for i in stack.frame_axes)
        if len(self.frames) + math.prod(counts) > MAX_FRAMES:
            raise ImageError(f"declares {math.prod(counts)} frames; the limit is {MAX_FRAMES}")
        check(height, width, channels, itemsize, self._stored(stack) // max(1, math.prod(counts)), limits)
        nbytes = height * width * channels * itemsize
        for number, where in enumerate(np.ndindex(*counts)):
            if any(page is not None for page in self._pages(stack, where)):
                self.frames.append(Frame(height, width, channels, nbytes, scale, number))
                self._where.append((stack, where))

    def _stored(self, stack: Stack) -> int:
        """Bytes of image data of a series. Raises ImageError where the file ends before them."""
        series, total = stack.series, 0
        if self._contiguous(stack):
            nbytes = math.prod(stack.shape) * np.dtype(series.dtype).itemsize
            self._within(series.dataoffset or 0, nbytes)
            return nbytes
        for page in series.pages:
            if page is None:
                continue
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
                self._within(offset, count)
            stored = sum(page.databytecounts)
            bits = series.keyframe.bitspersample * series.keyframe.size
            if series.keyframe.compression == tifffile.COMPRESSION.NONE and stored < bits // 8:
                raise ImageError(f"truncated: a page has {stored} bytes of image data, its header needs {bits // 8}")
            total += stored
        return total

    def _within(self, offset: int, count: int) -> None:
        if offset + count > self.size:
            raise ImageError(f"truncated: image data should reach byte {offset + count}, the file has {self.size}")

    def _contiguous(self, stack: Stack) -> bool:
        """Whether one page stands for many, which lie behind it (ImageJ's way with large stacks)."""
        return len(stack.series.pages) != math.prod(stack.shape[: stack.inner]) and stack.series.dataoffset is not None

    def _selection(self, stack: Stack, where: tuple[int, ...]) -> list[slice]:
        picked = dict(zip(stack.frame_axes, where, strict=True))
        return [slice(picked[i], picked[i] + 1) if i in picked else slice(None) for i in range(len(stack.axes))]

    def _pages(self, stack: Stack, where: tuple[int, ...]) -> list[tifffile.TiffPage | tifffile.TiffFrame | None]:
        """The pages that make up one frame, in the order of the leading axes."""
        if self._contiguous(stack):
            return [stack.series.keyframe]
        lead = stack.shape[: stack.inner]
        numbers = np.arange(math.prod(lead)).reshape(lead)[tuple(self._selection(stack, where)[: stack.inner])]
        return [stack.series.pages[int(number)] for number in numbers.ravel()]

    def read(self, index: int) -> tuple[np.ndarray, list[str]]:
        """(H, W, C) of any dtype, and remarks."""
        stack, where = self._where[index]
        selection = tuple(self._selection(stack, where))
        if self._contiguous(stack):
            dtype = np.dtype(stack.series.dtype).newbyteorder(self.tif.byteorder)
            whole = np.memmap(self.path, dtype, "r", offset=stack.series.dataoffset or 0, shape=stack.shape)
            values = np.array(whole[selection])
        else:
            pages = self._pages(stack, where)
            if any(page is None for page in pages):
                raise ImageError("a channel of this image lies in another file that is not here")
            inner = stack.shape[stack.inner :]
            planes = [page.asarray(maxworkers=1).reshape(inner)[selection[stack.inner :]] for page in pages if page]
            lead = [len(range(n)[s]) for n, s in zip(stack.shape, selection[: stack.inner], strict=False)]
            values = np.stack(planes).reshape(*lead, *planes[0].shape)
        return self._finish(stack, values)

    def close(self) -> None:
        """Let go of the file."""
        self.tif.close()

    def _finish(self, stack: Stack, values: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Axes in order Y, X, channels; palette and alpha resolved."""
        order = sorted(range(len(stack.axes)), key=lambda i: ("YXCS".find(stack.axes[i]) % 5, i))
        image = values.transpose(order).reshape(stack.size("Y"), stack.size("X"), -1)
        page, remarks = stack.series.keyframe, list[str]()
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
            return apply_palette(image[..., 0], page.colormap), remarks
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            remarks.append("its header says that 0 is white; the values are kept as they are stored")
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
    """Raise ImageError unless every page's directory lies in the file: tifffile would pass over what is cut off."""
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
                raise ImageError(f"truncated: the header of page {len(seen)} lies behind the end ({size} bytes)")
            stream.seek(end)
            (offset,) = struct.unpack(order + offset_format, stream.read(struct.calcsize(offset_format)))


def _stack(series: tifffile.TiffPageSeries) -> Stack:
    axes, shape = series.get_axes(False), tuple(series.get_shape(False))
    size = math.prod(series.keyframe.shape)
    inner = next((i for i in range(len(shape) + 1) if math.prod(shape[i:]) == size), None)
    if axes.count("Y") != 1 or axes.count("X") != 1 or inner is None:
        raise ImageError(f"holds an array with the axes {axes} and shape {shape}, which is no picture")
    return Stack(series, axes, shape, inner)


def apply_palette(index: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """(H, W) index and (3, 256) uint16 colours -> (H, W, 1) where all colours used are grey, else (H, W, 3), uint8."""
    table = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
    image = table.T[index]
    grey = np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2])
    return image[..., :1] if grey else image


def ome_scales(xml: str | None) -> list[float | None]:
    """um per px of each image that OME metadata describes, in order."""
    try:
        root = ElementTree.fromstring(xml or "")
    except Exception:  # broken metadata costs the scale, not the image
        return []
    scales = []
    for pixels in (element for element in root.iter() if str(element.tag).rsplit("}", 1)[-1] == "Pixels"):
        sides = []
        for axis in "XY":
            unit = UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").lower())
            value = pixels.get(f"PhysicalSize{axis}")
            sides.append(float(value) * unit if unit and value else None)
        scales.append(_square(*sides))
    return scales


def resolution_scale(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> float | None:
    """um per px from ImageJ's unit, else from resolution tags where a microscope could have meant them."""
    tags = page.tags
    try:
        sides = [_um(tags[name].value) for name in ("XResolution", "YResolution")]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if tif.is_imagej:
        unit = str((tif.imagej_metadata or {}).get("unit", "")).lower()
        return _square(*(side * UM[unit] for side in sides)) if unit in UM else None
    unit_tag = int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 2
    if unit_tag not in (2, 3):
        return None
    scale = _square(*(side * {2: 25_400.0, 3: 10_000.0}[unit_tag] for side in sides))
    return scale if scale and PLAUSIBLE_UM[0] <= scale <= PLAUSIBLE_UM[1] else None


def _um(pixels_per_unit: tuple[int, int]) -> float:
    """Units a pixel, of a rational number of pixels a unit."""
    return pixels_per_unit[1] / pixels_per_unit[0]


def _square(x: float | None, y: float | None) -> float | None:
    """One number for square pixels (within 1 %), rounded to 9 digits; None for others and for nonsense."""
    if x is None or y is None or not (0 < x < 1e4 and 0 < y < 1e4) or abs(x - y) > 0.01 * x:
        return None
    return float(f"{x:.9g}")
