"""From images and a segmentor to instances, and to files that people and other programs open."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.infer.component import Infer
from components.infer.page import PANELS, make_page
from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LabelWriter
from shared.artifacts.postprocessing import resolve
from shared.exporters import Exporter, PredictedImage, open_exporters
from shared.exporters.overlay_png import overlay
from shared.imaging.region_properties import mean_over_objects
from shared.models.load import load_model
from shared.models.segmentor import Segmentor
from shared.models.tiled_inference import TiledPredictor, predict_at_scale
from shared.stage.declaration import Result
from shared.system.devices import device, threads
from shared.system.parallel import in_order
from shared.system.progress import track
from shared.targets import load_target

Maps = tuple[int, str, np.ndarray, np.ndarray]
"""Position from 1, key, image (H, W, C), maps (M, H, W) float32."""


@dataclass
class Finished:
    """What is left of an image once its own files are written."""

    item: PredictedImage
    prepared: list[Any]
    """For each exporter."""
    picture: np.ndarray | None
    """For the page, of the first images."""


def run(stage: Infer) -> Result:
    """Predict every image, write its instances and files, and keep only what the page needs."""
    images = ImageReader(stage.images)
    keys = images.keys()
    predict = Prediction(stage)
    areas: dict[str, np.ndarray] = {}
    panels: list[tuple[np.ndarray, str]] = []
    with ExitStack() as stack:
        writer = stack.enter_context(LabelWriter(stage.predictions, "prediction"))
        exporters = open_exporters(stage.formats, stage.files, [images.entries[key] for key in keys])
        for exporter in exporters:
            stack.enter_context(exporter)
        pool = stack.enter_context(ThreadPoolExecutor(threads()))  # one image is finished, the network sees the next
        each = in_order(
            pool,
            lambda item: predict.finish(images, exporters, item),
            _predicted(images, keys, predict),
            lambda item: 2 * item[2].nbytes + 6 * item[3].nbytes,
        )
        for one in track(each, "infer", len(keys)):
            entry, labels = one.item.entry, one.item.labels
            writer.add(entry.key, labels, "instances", scores=one.item.scores)
            for exporter, prepared in zip(exporters, one.prepared, strict=True):
                exporter.append(prepared)
            areas[entry.key] = np.bincount(labels.ravel())[1:]
            if one.picture is not None:
                panels.append((one.picture, f"{entry.source}: {len(areas[entry.key])} cells"))
    metrics = _metrics(areas)
    return Result(metrics=metrics, page=make_page(images, areas, panels))


def _predicted(images: ImageReader, keys: list[str], predict: "Prediction") -> Iterator[Maps]:
    for number, key in enumerate(keys, 1):
        image = images.read(key)
        yield number, key, image, predict.maps(image, images.entries[key].um_per_px)


def _metrics(areas: dict[str, np.ndarray]) -> dict[str, float]:
    every = np.concatenate([np.zeros(0, np.int64), *areas.values()])
    return {
        "images": float(len(areas)),
        "cells": float(len(every)),
        "cells_per_image": len(every) / max(len(areas), 1),
        "median_area_px": float(np.median(every)) if len(every) else 0.0,
    }


class Prediction:
    """The stage's segmentor: from an image to its maps, and from these to instances and files."""

    def __init__(self, stage: Infer) -> None:
        """Raises ArtifactError where the model is no segmentor."""
        segmentor = load_model(stage.model, Segmentor)
        self.stage, config = stage, segmentor.config
        self.predictor = TiledPredictor.of(segmentor, device(), tile=stage.tile, batch_size=stage.batch_size)
        self.target = load_target(config.architecture.target)
        self.settings = resolve(stage, config.postprocessing)

    def maps(self, image: np.ndarray, um_per_px: float | None) -> np.ndarray:
        """The network's maps of an image: (M, H, W) float32; of a large one on disk, in a file without a name."""
        if self.stage.rescale == "um_per_px":
            return predict_at_scale(self.predictor, image, um_per_px)
        shape = self.predictor.maps, *image.shape[:2]
        if max(image.shape[:2]) <= self.stage.block:
            maps = np.empty(shape, np.float32)
        else:
            with tempfile.TemporaryFile(dir=self.stage.files.parent) as file:  # mapped, it lives until the array goes
                maps = np.memmap(file, np.float32, "w+", shape=shape)
        self.predictor.predict_into(maps, image)
        return maps

    def finish(self, images: ImageReader, exporters: list[Exporter], item: Maps) -> Finished:
        """Instances of an image, and its files."""
        number, key, image, maps = item
        probability = np.empty(maps.shape[1:], np.uint8)  # a copy: decoding overwrites the map
        np.rint(maps[0] * 255, out=probability, casting="unsafe")
        found = self.target.decode(maps, image, self.settings, rows=self.stage.block)
        scores = mean_over_objects(found.labels, probability) / 255
        predicted = PredictedImage(number, images.entries[key], image, found.mask, found.labels, scores)
        picture = overlay(image, found.labels, 640) if number <= PANELS else None
        return Finished(predicted, [exporter.prepare(predicted) for exporter in exporters], picture)
