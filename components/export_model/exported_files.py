"""Write the exported files, and compare each with the weights."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from components.export_model.comparison import Comparison, compare
from components.export_model.component import ExportModel
from components.export_model.evaluation_set import EvaluationSet
from components.export_model.exportable import Exportable
from components.export_model.gate import rejection_reason
from components.export_model.int8_export import (
    CALIBRATION_TILES,
    FOR_CPU,
    FOR_TENSORRT,
    Quantisation,
    write_int8,
)
from components.export_model.onnx_export import write_onnx
from components.export_model.predictions import Predictions, network_inputs, predict_images
from components.export_model.tensorrt_engine import Precision, precisions_from, write_engine
from components.export_model.timing import Timing, time_networks
from shared.models.network import Network
from shared.models.runtimes import ENGINE_FILE, INT8_FILE, ONNX_FILE
from shared.models.runtimes.onnx_runtime import onnx_network
from shared.models.runtimes.tensorrt_runtime import engine_network
from shared.system.log import log

WEIGHTS = "weights"
"""Name of the model's own network beside the files."""
TOO_SLOW = "too slow (--min_speedup {:g})"


@dataclass(frozen=True)
class ExportedFile:
    """An exported file, compared with the weights."""

    name: str
    precision: str
    compared: Comparison
    network: Network
    predictions: Predictions
    seconds: float
    """Time to write it."""
    rejection: str
    """How it is worse than the limits; empty if it is accepted."""
    method: str = ""
    """What is quantised, of an INT8 file."""
    attempts: tuple[str, ...] = ()
    """What was tried before and refused, and why."""
    speedup: float | None = None
    """CPU time of `model.onnx` for a batch over that of this file, where that decides."""

    @property
    def accepted(self) -> bool:
        """Whether it is kept."""
        return not self.rejection


@dataclass
class ModelExport:
    """A model, and the images on which its exported files are compared with the weights."""

    stage: ExportModel
    subject: Exportable
    images: EvaluationSet
    device: str
    timings: dict[str, list[Timing]] = field(default_factory=dict)
    """Name of a file, or `WEIGHTS` -> duration of a batch of one tile and of `batch_size` tiles."""

    @cached_property
    def weights_network(self) -> Network:
        """The model's own network."""
        return self.subject.network(self.device)

    @cached_property
    def weights(self) -> Predictions:
        """What the model's own network predicts."""
        return self._predict(self.weights_network, WEIGHTS)

    @cached_property
    def calibration_tiles(self) -> list[np.ndarray]:
        """Normalised tiles (1, C, H, W) of images that are not compared on."""
        return self._tiles(self.images.calibration, CALIBRATION_TILES)

    @cached_property
    def timed_tile(self) -> np.ndarray:
        """The first of them, (1, C, H, W): speed is measured on it."""
        return self._tiles(self.images.calibration[:1], 1)[0]

    def _tiles(self, images: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
        options = {"tile": self.stage.tile, "batch_size": self.stage.batch_size, "count": count}
        return network_inputs(self.weights_network, self.subject, images, **options)

    # --- files ----------------------------------------------------------------------------------------------------

    def onnx(self) -> ExportedFile:
        """Write the float32 ONNX file and compare it with the weights."""
        return self._file(ONNX_FILE, "float32", lambda path: write_onnx(self.subject, path), onnx_network)

    def int8(self, onnx: ExportedFile) -> ExportedFile:
        """Write INT8 files until one is as good as the weights and faster than `onnx`; the last one if none is."""
        attempts: tuple[str, ...] = ()
        for quantisation in FOR_CPU:
            file = self._int8(quantisation)
            if file.accepted:
                file = self._check_speed(onnx, file)
            file = replace(file, attempts=attempts)
            if file.accepted:
                return file
            attempts += (f"{quantisation.name}: {file.rejection}",)
        return file

    def engine(self) -> ExportedFile:
        """Build TensorRT engines, the lowest precision first, until one is as good as the weights."""
        attempts: tuple[str, ...] = ()
        for precision in precisions_from(self.stage.precision):
            file = replace(self._engine(precision), attempts=attempts)
            if file.accepted:
                return file
            attempts += (f"{precision}: {file.rejection}",)
        return file

    def measure(self, files: Sequence[ExportedFile]) -> None:
        """Measure the speed of weights and files side by side, where it is not known yet."""
        networks = {WEIGHTS: self.weights_network, **{file.name: file.network for file in files}}
        if any(name not in self.timings for name in networks):
            batches = tuple(sorted({1, self.stage.batch_size}))
            self.timings |= time_networks(networks, self.timed_tile, batches)

    def compare_network(self, network: Network, name: str) -> tuple[Predictions, Comparison]:
        """Predict the images with a network, and compare with the weights; name: in progress messages."""
        predictions = self._predict(network, name)
        return predictions, compare(predictions, self.weights, self.subject, self.images)

    # --- one file -------------------------------------------------------------------------------------------------

    def _int8(self, quantisation: Quantisation) -> ExportedFile:
        def write(path: Path) -> None:
            write_int8(self.subject, self.stage.exported / ONNX_FILE, path, self.calibration_tiles, quantisation)

        return replace(self._file(INT8_FILE, "int8", write, onnx_network), method=quantisation.name)

    def _check_speed(self, onnx: ExportedFile, file: ExportedFile) -> ExportedFile:
        """Reject an INT8 file that is not fast enough."""
        for name in (WEIGHTS, onnx.name, file.name):
            self.timings.pop(name, None)
        self.measure([onnx, file])
        speedup = self.timings[onnx.name][-1].cpu_ms / self.timings[file.name][-1].cpu_ms
        rejection = "" if speedup >= self.stage.min_speedup else TOO_SLOW.format(self.stage.min_speedup)
        return replace(file, speedup=speedup, rejection=rejection)

    def _engine(self, precision: Precision) -> ExportedFile:
        subject, stage = self.subject, self.stage

        def write(path: Path) -> None:
            source = Path(stage.exported) / ONNX_FILE
            with tempfile.TemporaryDirectory() as folder:
                if precision == "int8":
                    source = Path(folder) / ONNX_FILE
                    write_int8(subject, stage.exported / ONNX_FILE, source, self.calibration_tiles, FOR_TENSORRT)
                write_engine(subject, source, path, batch=stage.batch_size, precision=precision)

        return self._file(
            ENGINE_FILE, precision, write, lambda path: engine_network(path, subject.outputs, self.device)
        )

    def _file(
        self, name: str, precision: str, write: Callable[[Path], None], load: Callable[[Path], Network]
    ) -> ExportedFile:
        """Write a file and compare it with the weights."""
        path = self.stage.exported / name
        started = time.monotonic()
        write(path)
        seconds = time.monotonic() - started
        log.info("%s written in %.1f s", name, seconds)
        network = load(path)
        predictions, compared = self.compare_network(network, f"{name}, {precision}")
        rejection = rejection_reason(self.stage, precision, compared)
        return ExportedFile(name, precision, compared, network, predictions, seconds, rejection)

    def _predict(self, network: Network, name: str) -> Predictions:
        """Apply a network to the images; name: what progress messages call it."""
        stage = self.stage
        given = {"tile": stage.tile, "batch_size": stage.batch_size}
        return predict_images(network, self.subject, self.images.images, **given, name=name)
