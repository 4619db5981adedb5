"""Decode formats of microscope vendors through the optional extra `bioio`."""

import importlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from shared.readers.decode.limits import DeclaredSize, Frame, Limits, check_size
from shared.readers.decode.pixel_size import square_pixel_size
from shared.system.errors import ImageError

TIFF_SLIDE_SUFFIXES = {".svs", ".ndpi", ".scn"}
"""Slides in TIFF: bioio does not choose a reader for these by itself."""
VENDOR_SUFFIXES = TIFF_SLIDE_SUFFIXES | {".czi", ".nd2", ".lif", ".mrxs", ".vsi", ".oib", ".oif", ".oir", ".ims", ".dv"}
"""Suffixes of files that are decoded by bioio, in lower case."""
INSTALL_EXTRA = "pip install 'cytoloom[bioio]'"
logging.getLogger("bioio").setLevel(logging.CRITICAL)  # its warnings become reasons of rejects


class VendorReader:
    """Frames of a file that bioio reads: one (H, W, C) per scene, time and z plane."""

    def __init__(self, path: Path, limits: Limits) -> None:
        kind = path.suffix.lower().lstrip(".").upper()
        self._bgr = kind == "CZI"
        try:
            bioio: Any = importlib.import_module("bioio")
            is_slide = path.suffix.lower() in TIFF_SLIDE_SUFFIXES
            tiff: Any = importlib.import_module("bioio_tifffile") if is_slide else None
        except ImportError as error:
            raise ImageError(f"{kind} files need an extra: {INSTALL_EXTRA}") from error
        try:
            self._image = bioio.BioImage(path, reader=tiff.Reader) if tiff else bioio.BioImage(path)
        except Exception as error:
            if type(error).__name__ == "UnsupportedFileFormatError":
                raise ImageError(f"damaged, or no reader for {kind} files is installed ({INSTALL_EXTRA})") from error
            raise
        self.frames: list[Frame] = []
        self._where: list[tuple[Any, int, int]] = []
        for scene in self._image.scenes:
            self._add(scene, limits)

    def _add(self, scene: Any, limits: Limits) -> None:
        self._image.set_scene(scene)
        sizes = dict(zip(self._image.dims.order, self._image.dims.shape, strict=True))
        channels = sizes.get("C", 1) * sizes.get("S", 1)
        declared = DeclaredSize(sizes["Y"], sizes["X"], channels, np.dtype(self._image.dtype).itemsize)
        check_size(declared, None, limits)
        pixel = self._image.physical_pixel_sizes
        scale = square_pixel_size(pixel.X, pixel.Y) if pixel.X != 1.0 else None  # readers give 1 for an unknown size
        for t in range(sizes.get("T", 1)):
            for z in range(sizes.get("Z", 1)):
                self.frames.append(declared.frame(scale, len(self.frames)))
                self._where.append((scene, t, z))

    def read(self, index: int, *, raw: bool = False) -> tuple[np.ndarray, list[str]]:
        """Decode one frame (H, W, C) of any dtype; there are no remarks, and no other pixels that are `raw`."""
        scene, t, z = self._where[index]
        self._image.set_scene(scene)
        if "S" not in self._image.dims.order:
            lazy = self._image.get_image_dask_data("YXC", T=t, Z=z)
            return np.asarray(lazy.compute(scheduler="synchronous")), []
        # Colour is not read lazily: lazy arrays of bioio-czi 3.0 repeat the first sample. CZI stores B, G, R.
        values = np.asarray(self._image.get_image_data("YXCS", T=t, Z=z))
        values = values[..., ::-1] if self._bgr else values
        return values.reshape(*values.shape[:2], -1), []

    def close(self) -> None:
        """Do nothing: bioio opens and closes the file on each read."""
