"""`infer`: from images and a segmentor to files that people and other programs open."""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.infer.component import Infer
from components.infer.writers import CellTable, CocoFile, overlay, write_labels, write_png
from shared.artifacts.image_set import ImageEntry, ImageReader
from shared.exporters.coco import annotations
from shared.imaging.overlays import thumbnail
from shared.imaging.region_properties import measure
from shared.instances.postprocess import find
from shared.models.segmentor import SegmentorConfig, for_prediction, load_segmentor
from shared.models.tiled_inference import predict_blocks
from shared.reporting.page import Page
from shared.stage.declaration import Result
from shared.system.devices import device, threads
from shared.system.parallel import in_order
from shared.system.progress import track

Predict = Callable[[np.ndarray, np.ndarray], None]
"""Fills the second argument (maps, H, W) float32 with what the segmentor says of the first (H, W, C)."""
PANELS, ROWS_SHOWN, AREA_BINS = 8, 40, 24


@dataclass
class Finished:
    """What is left of an image once its files are written."""

    key: str
    measured: dict[str, np.ndarray]
    annotations: list[dict]
    """Numbered from 1; the whole file is numbered through."""
    picture: np.ndarray | None
    """For the page, of the first images."""


def run(stage: Infer) -> Result:
    """Predict every image, write its files, and keep only what the page needs."""
    images = ImageReader(stage.images)
    predict, config = predictor(stage)
    for name in ("labels", "semantic", "overlays"):
        (stage.predictions / name).mkdir()
    keys = images.keys()
    areas: dict[str, np.ndarray] = {}
    panels: list[tuple[np.ndarray, str]] = []
    with (
        (stage.predictions / "cells.csv").open("w", encoding="utf-8", newline="") as stream,
        CocoFile(stage.predictions / "coco.json", [images.entries[key] for key in keys]) as coco,
    ):
        cells = CellTable(stream, list(images.entries.values()))

        def predicted() -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
            for number, key in enumerate(keys, 1):
                image = images.read(key)
                yield number, key, image, maps_of(stage, predict, config, image)

        def finished(item: tuple[int, str, np.ndarray, np.ndarray]) -> Finished:
            number, key, image, maps = item
            mask, labels = cells_of(stage, config, image, maps)
            drawn = write_image(stage.predictions, images.entries[key], image, mask, labels)
            picture = thumbnail(drawn, 640) if number <= PANELS else None
            return Finished(key, measure(labels, image), annotations(labels, number, 1), picture)

        with ThreadPoolExecutor(threads()) as pool:  # while one image is finished, the network sees the next
            each = in_order(pool, finished, predicted(), lambda item: 2 * item[2].nbytes + 6 * item[3].nbytes)
            for one in track(each, "infer", len(keys)):
                entry = images.entries[one.key]
                cells.add(entry, one.measured)
                areas[one.key] = one.measured["area_px"]
                coco.add(one.annotations)
                if one.picture is not None:
                    panels.append((one.picture, f"{entry.source}: {len(areas[one.key])} cells"))
    every = np.concatenate([np.zeros(0, np.int64), *areas.values()])
    metrics = {
        "images": float(len(keys)),
        "cells": float(len(every)),
        "cells_per_image": len(every) / max(len(keys), 1),
        "median_area_px": float(np.median(every)) if len(every) else 0.0,
    }
    return Result(metrics=metrics, page=page(images, areas, every, panels))


def predictor(stage: Infer) -> tuple[Predict, SegmentorConfig]:
    """The stage's segmentor as a function, and its config. Raises ArtifactError where it is no segmentor."""
    segmentor, config = load_segmentor(stage.model)
    where = device()
    segmentor = for_prediction(segmentor, where)

    def predict(image: np.ndarray, out: np.ndarray) -> None:
        predict_blocks(segmentor, config, image, out, tile=stage.tile, batch_size=stage.batch_size, device=where)

    return predict, config


def maps_of(stage: Infer, predict: Predict, config: SegmentorConfig, image: np.ndarray) -> np.ndarray:
    """What the network says of an image: (maps, H, W) float32; of a large one on disk, in a file without a name."""
    shape = config.maps, *image.shape[:2]
    if max(image.shape[:2]) <= stage.block:
        maps = np.empty(shape, np.float32)
    else:
        with tempfile.TemporaryFile(dir=stage.predictions.parent) as file:  # mapped, it lives until the array goes
            maps = np.memmap(file, np.float32, "w+", shape=shape)
    predict(image, maps)
    return maps


def cells_of(
    stage: Infer, config: SegmentorConfig, image: np.ndarray, maps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Foreground mask (H, W) uint8 {0, 1} and label image (H, W) of an image and its maps."""
    sharpen = config.sharpen if stage.sharpen == "auto" else stage.sharpen
    found = find(
        maps, image, threshold=stage.threshold, sure=stage.sure or config.sure, sharpen=sharpen, rows=stage.block
    )
    labels = found.cells(
        stage.saddle or config.saddle,
        min_distance=stage.min_distance,
        min_area=stage.min_area,
        min_share=stage.min_share,
        min_depth=stage.min_depth,
    )
    return found.mask, labels


def write_image(folder: Path, entry: ImageEntry, image: np.ndarray, mask: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Write the three pictures of one image; returns the overlay (h, w, 3) uint8."""
    write_labels(folder / "labels" / f"{entry.key}.tif", labels, entry.um_per_px)
    write_png(folder / "semantic" / f"{entry.key}.png", mask * np.uint8(255))
    drawn = overlay(image, labels)
    write_png(folder / "overlays" / f"{entry.key}.png", drawn)
    return drawn


def page(
    images: ImageReader, areas: dict[str, np.ndarray], every: np.ndarray, panels: list[tuple[np.ndarray, str]]
) -> Page:
    """What was found, in numbers and pictures."""
    result = Page("infer")
    result.text(
        f"{len(every)} cells in {len(areas)} images. Median area {np.median(every) if len(every) else 0:g} px²."
    )
    result.images(panels)
    if len(every):
        limits = np.geomspace(every.min(), every.max() + 1, AREA_BINS + 1)
        points = zip(np.log10(limits[1:] * limits[:-1]) / 2, np.histogram(every, limits)[0], strict=True)
        result.plot("Areas", {"cells": list(points)}, x="log10 of the area in px²", y="cells")
    shown = list(areas)[:ROWS_SHOWN]
    rows = [
        [images.entries[key].source, len(areas[key]), float(np.median(areas[key])) if len(areas[key]) else 0.0]
        for key in shown
    ]
    result.heading("Images")
    result.table(["image", "cells", "median area, px²"], rows)
    if len(areas) > len(shown):
        result.text(f"... and {len(areas) - len(shown)} more; cells.csv lists every cell of every image.")
    return result
