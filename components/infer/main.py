"""Predict images with a segmentor; write instances, and files that people and other programs open."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.infer.component import Infer
from components.infer.instance_predictor import InstancePredictor
from components.infer.page import PANELS, make_page
from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LabelWriter
from shared.exporters.exporter import PredictedImage
from shared.exporters.overlay_png import overlay
from shared.exporters.registry import open_exporters
from shared.stage.declaration import Result
from shared.system.devices import threads
from shared.system.parallel import in_order
from shared.system.progress import track

_PANEL_SIDE = 640
"""px on the longer side of the page's pictures."""
Maps = tuple[int, str, np.ndarray, np.ndarray]
"""Position from 1, key, image (H, W, C), maps (M, H, W) float32."""


@dataclass
class FinishedImage:
    """A predicted image whose own files are written."""

    predicted: PredictedImage
    prepared: list[Any]
    """What each exporter appends to its file of all images."""
    panel: np.ndarray | None
    """Picture for the page; None after the first images."""


def run(stage: Infer) -> Result:
    """Predict every image and write it; only what the page shows is kept in memory."""
    images = ImageReader(stage.images)
    keys = images.keys()
    predictor = InstancePredictor(stage)
    areas: dict[str, np.ndarray] = {}
    panels: list[tuple[np.ndarray, str]] = []
    with ExitStack() as stack:
        writer = stack.enter_context(LabelWriter(stage.predictions, "prediction"))
        exporters = open_exporters(stage.formats, stage.files, [images.entries[key] for key in keys])
        for exporter in exporters:
            stack.enter_context(exporter)

        def finish(item: Maps) -> FinishedImage:
            number, key, image, maps = item
            predicted = predictor.instances(number, images.entries[key], image, maps)
            panel = overlay(image, predicted.labels, _PANEL_SIDE) if number <= PANELS else None
            return FinishedImage(predicted, [exporter.prepare(predicted) for exporter in exporters], panel)

        pool = stack.enter_context(ThreadPoolExecutor(threads()))  # finishes images while the network sees the next one
        finished = in_order(pool, finish, _maps(images, keys, predictor), _bytes)
        for one in track(finished, "infer", len(keys)):
            entry, labels = one.predicted.entry, one.predicted.labels
            writer.add(entry.key, labels, "instances", scores=one.predicted.scores)
            for exporter, prepared in zip(exporters, one.prepared, strict=True):
                exporter.append(prepared)
            areas[entry.key] = np.bincount(labels.ravel())[1:]
            if one.panel is not None:
                panels.append((one.panel, f"{entry.source}: {len(areas[entry.key])} cells"))
    return Result(metrics=_metrics(areas), page=make_page(images, areas, panels))


def _maps(images: ImageReader, keys: list[str], predictor: InstancePredictor) -> Iterator[Maps]:
    for number, key in enumerate(keys, 1):
        image = images.read(key)
        yield number, key, image, predictor.maps(image, images.entries[key].um_per_px)


def _bytes(item: Maps) -> int:
    """Memory of an image in work, roughly."""
    _, _, image, maps = item
    return 2 * image.nbytes + 6 * maps.nbytes


def _metrics(areas: dict[str, np.ndarray]) -> dict[str, float]:
    every = np.concatenate([np.zeros(0, np.int64), *areas.values()])
    return {
        "images": float(len(areas)),
        "cells": float(len(every)),
        "cells_per_image": len(every) / max(len(areas), 1),
        "median_area_px": float(np.median(every)) if len(every) else 0.0,
    }
