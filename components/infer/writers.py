"""The files of a Predictions artifact, each in its own plain format. Equal input, equal bytes."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TextIO

import imagecodecs
import numpy as np
import tifffile

from shared.artifacts.image_set import ImageEntry
from shared.exporters.coco import dataset
from shared.imaging.overlays import outline, thumbnail, to_rgb8

OVERLAY_SIDE = 4096
"""px; overlays of larger images are scaled down to it, for a browser shows no larger ones."""


def write_labels(path: Path, labels: np.ndarray, um_per_px: float | None) -> None:
    """Label TIFF (H, W) uint16 or uint32, zlib, with the scale where it is known; Fiji and napari open it."""
    scale: dict[str, Any] = {}
    if um_per_px:
        scale = {"resolution": (1e4 / um_per_px, 1e4 / um_per_px), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, labels, photometric="minisblack", compression="zlib", metadata=None, software="", **scale)


def write_png(path: Path, image: np.ndarray) -> None:
    """PNG of (H, W) or (H, W, 3) uint8."""
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(image), 1))


def overlay(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Outlines on the image as RGB uint8, in the image's size up to OVERLAY_SIDE."""
    small = thumbnail(image, OVERLAY_SIDE)
    small = small if small.ndim == 3 else small[..., None]
    if small.shape[:2] != labels.shape:
        rows, columns = (
            np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.int64)
            for new, old in zip(small.shape[:2], labels.shape, strict=True)
        )
        labels = labels[rows[:, None], columns]
    return outline(to_rgb8(small), labels)


class CellTable:
    """Writes `cells.csv`: a row for every cell, and `_um` columns where any image has a scale."""

    def __init__(self, stream: TextIO, entries: Sequence[ImageEntry]) -> None:
        channels = max((entry.channels for entry in entries), default=0)
        self._scaled = any(entry.um_per_px for entry in entries)
        scaled = ["area_um2", "centroid_y_um", "centroid_x_um"] if self._scaled else []
        places = ["centroid_y", "centroid_x", "y0", "x0", "y1", "x1", "eccentricity"]
        means = [f"mean_{channel}" for channel in range(channels)]
        self.columns = ["image", "source", "label", "area_px", *places, *means, *scaled]
        self._writer = csv.DictWriter(stream, self.columns, restval="", lineterminator="\n")
        self._writer.writeheader()

    def add(self, entry: ImageEntry, measured: dict[str, np.ndarray]) -> None:
        """Append the cells of one image, as `measure` describes them."""
        columns: dict[str, Any] = dict(measured)
        if entry.um_per_px:
            columns["area_um2"] = measured["area_px"] * entry.um_per_px**2
            columns["centroid_y_um"] = measured["centroid_y"] * entry.um_per_px
            columns["centroid_x_um"] = measured["centroid_x"] * entry.um_per_px
        for number in range(len(measured["area_px"])):
            row = {name: _text(values[number]) for name, values in columns.items()}
            self._writer.writerow({"image": entry.key, "source": entry.source, "label": number + 1, **row})


class CocoFile:
    """Writes `coco.json`: annotations as they come, so that none is kept; images are numbered from 1 in their order."""

    def __init__(self, path: Path, entries: Sequence[ImageEntry]) -> None:
        images = [
            {"id": number, "file_name": entry.source, "height": entry.height, "width": entry.width, "key": entry.key}
            for number, entry in enumerate(entries, 1)
        ]
        name = '"annotations":['
        before, self._closing = _json(dataset(images, [], "cells found by Cytoloom")).split(name, 1)
        self._stream = path.open("w", encoding="utf-8")
        self._stream.write(before + name)
        self._count = 0

    def add(self, annotations: Sequence[dict]) -> None:
        """Append annotations; their ids are counted through all images, from 1."""
        for one in annotations:
            self._stream.write("," * bool(self._count))
            self._count += 1
            self._stream.write(_json({**one, "id": self._count}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._stream:
            if kind is None:  # what was broken off stays no JSON, so that none takes it for the whole
                self._stream.write(self._closing + "\n")


def _json(value: dict) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _text(value: Any) -> str:
    """A number as text: whole ones whole, others with seven significant digits."""
    return str(int(value)) if isinstance(value, np.integer) else f"{value:.7g}"
