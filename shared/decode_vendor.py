"""Microscope vendors' formats, through the optional extra `bioio`."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from shared.decode_limits import Frame, Limits, check
from shared.errors import ImageError

EXTENSIONS = {".czi", ".nd2", ".lif", ".svs", ".ndpi", ".scn", ".mrxs", ".vsi", ".oib", ".oif", ".oir", ".ims", ".dv"}
EXTRA = "pip install 'cytoloom[bioio]'"


class VendorReader:
    """Frames of a file that bioio can read: every scene, time and z plane one (H, W, C)."""

    def __init__(self, path: Path, limits: Limits) -> None:
        kind = path.suffix.lower().lstrip(".").upper()
        try:
            bioio: Any = importlib.import_module("bioio")
        except ImportError as error:
            raise ImageError(f"{kind} files need an extra: {EXTRA}") from error
        try:
            self._image = bioio.BioImage(path)
        except Exception as error:
            if type(error).__name__ == "UnsupportedFileFormatError":
                raise ImageError(f"no reader for {kind} files is installed: {EXTRA}, or bioio's plugin") from error
            raise
        self.frames: list[Frame] = []
        self._where: list[tuple[Any, int, int]] = []
        for scene in self._image.scenes:
            self._add(scene, limits)

    def _add(self, scene: Any, limits: Limits) -> None:
        self._image.set_scene(scene)
        sizes = dict(zip(self._image.dims.order, self._image.dims.shape, strict=True))
        height, width = sizes["Y"], sizes["X"]
        channels = sizes.get("C", 1) * sizes.get("S", 1)
        itemsize = np.dtype(self._image.dtype).itemsize
        check(height, width, channels, itemsize, None, limits)
        pixel = self._image.physical_pixel_sizes
        square = pixel.X and pixel.Y and abs(pixel.X - pixel.Y) <= 0.01 * pixel.X
        scale = float(f"{pixel.X:.9g}") if square and pixel.X > 0 else None
        for t in range(sizes.get("T", 1)):
            for z in range(sizes.get("Z", 1)):
                nbytes = height * width * channels * itemsize
                self.frames.append(Frame(height, width, channels, nbytes, scale, len(self.frames)))
                self._where.append((scene, t, z))

    def read(self, index: int) -> tuple[np.ndarray, list[str]]:
        """(H, W, C) of any dtype; no remarks."""
        scene, t, z = self._where[index]
        self._image.set_scene(scene)
        order = "YXCS" if "S" in self._image.dims.order else "YXC"
        lazy = self._image.get_image_dask_data(order, T=t, Z=z)
        values = np.asarray(lazy.compute(scheduler="synchronous"))
        return values.reshape(*values.shape[:2], -1), []

    def close(self) -> None:
        """bioio opens and closes the file on each read."""
