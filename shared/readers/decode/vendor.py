"""Microscope vendors' formats, through the optional extra `bioio`."""

import importlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from shared.readers.decode.limits import Frame, Limits, check
from shared.system.errors import ImageError

EXTENSIONS = {".czi", ".nd2", ".lif", ".svs", ".ndpi", ".scn", ".mrxs", ".vsi", ".oib", ".oif", ".oir", ".ims", ".dv"}
TIFF_LIKE = {".svs", ".ndpi", ".scn"}
"""Slides that are TIFF inside, which bioio leaves to a reader chosen by hand."""
EXTRA = "pip install 'cytoloom[bioio]'"
logging.getLogger("bioio").setLevel(logging.CRITICAL)  # what it warns of ends up in our own reasons


class VendorReader:
    """Frames of a file that bioio can read: every scene, time and z plane one (H, W, C)."""

    def __init__(self, path: Path, limits: Limits) -> None:
        kind = path.suffix.lower().lstrip(".").upper()
        self._bgr = kind == "CZI"
        try:
            bioio: Any = importlib.import_module("bioio")
            tiff: Any = importlib.import_module("bioio_tifffile") if path.suffix.lower() in TIFF_LIKE else None
        except ImportError as error:
            raise ImageError(f"{kind} files need an extra: {EXTRA}") from error
        try:
            self._image = bioio.BioImage(path, reader=tiff.Reader) if tiff else bioio.BioImage(path)
        except Exception as error:
            if type(error).__name__ == "UnsupportedFileFormatError":
                raise ImageError(f"damaged, or no reader for {kind} files is installed ({EXTRA})") from error
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
        real = square and pixel.X > 0 and pixel.X != 1.0  # readers give 1 where the file gives nothing
        scale = float(f"{pixel.X:.9g}") if real else None
        for t in range(sizes.get("T", 1)):
            for z in range(sizes.get("Z", 1)):
                nbytes = height * width * channels * itemsize
                self.frames.append(Frame(height, width, channels, nbytes, scale, len(self.frames)))
                self._where.append((scene, t, z))

    def read(self, index: int) -> tuple[np.ndarray, list[str]]:
        """(H, W, C) of any dtype; no remarks."""
        scene, t, z = self._where[index]
        self._image.set_scene(scene)
        if "S" not in self._image.dims.order:
            lazy = self._image.get_image_dask_data("YXC", T=t, Z=z)
            return np.asarray(lazy.compute(scheduler="synchronous")), []
        # Colour is read at once: bioio-czi 3.0's lazy arrays repeat the first sample. CZI keeps it as B, G, R.
        values = np.asarray(self._image.get_image_data("YXCS", T=t, Z=z))
        values = values[..., ::-1] if self._bgr else values
        return values.reshape(*values.shape[:2], -1), []

    def close(self) -> None:
        """bioio opens and closes the file on each read."""
