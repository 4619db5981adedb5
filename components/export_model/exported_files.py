"""Write the exported files, and compare each with the weights."""

import time
from dataclasses import dataclass

import numpy as np

from components.export_model.comparison import ModelOutput, OutputDifference, compare_outputs, predict_images
from components.export_model.component import ExportModel
from components.export_model.exportable import Exportable
from components.export_model.onnx_export import write_onnx
from components.export_model.tensorrt_engine import write_engine
from shared.models.network import Network
from shared.models.runtimes import ENGINE_FILE, ONNX_FILE
from shared.models.runtimes.onnx_runtime import onnx_network
from shared.models.runtimes.tensorrt_runtime import engine_network
from shared.system.log import log


@dataclass(frozen=True)
class ExportedFile:
    """An exported file, compared with the weights."""

    name: str
    precision: str
    difference: OutputDifference
    output: ModelOutput
    seconds: float
    """Time to write it."""
    rejection: str
    """How it differs from the weights; empty if it is accepted."""

    @property
    def accepted(self) -> bool:
        """Whether it agrees with the weights."""
        return not self.rejection


@dataclass(frozen=True)
class ModelExport:
    """A model, and the images on which its exported files are compared with the weights."""

    stage: ExportModel
    subject: Exportable
    images: list[np.ndarray]
    """(H, W, C) each."""
    device: str

    def predict(self, network: Network, name: str) -> ModelOutput:
        """Apply a network to the images; name: what progress messages call it."""
        stage = self.stage
        given = {"tile": stage.tile, "batch_size": stage.batch_size}
        return predict_images(network, self.subject, self.images, **given, name=name)

    def weights(self) -> ModelOutput:
        """Apply the model's own network."""
        return self.predict(self.subject.network(self.device), "weights")

    def onnx(self, reference: ModelOutput) -> ExportedFile:
        """Write the ONNX file and compare it with the weights."""
        path = self.stage.exported / ONNX_FILE
        started = time.monotonic()
        write_onnx(self.subject, path)
        seconds = time.monotonic() - started
        return self._compare(ONNX_FILE, "float32", self.predict(onnx_network(path), "ONNX"), reference, seconds)

    def engine(self, reference: ModelOutput) -> ExportedFile:
        """Build the TensorRT engine from the ONNX file and compare it with the weights."""
        stage, subject, path = self.stage, self.subject, self.stage.exported / ENGINE_FILE
        started = time.monotonic()
        write_engine(
            stage.exported / ONNX_FILE,
            path,
            channels=subject.config.input.channels,
            multiple=subject.multiple,
            side=stage.tile * subject.config.input.downsample,
            batch=stage.batch_size,
            half=stage.precision == "float16",
        )
        seconds = time.monotonic() - started
        network = engine_network(path, (subject.output,), self.device)
        return self._compare(ENGINE_FILE, stage.precision, self.predict(network, "TensorRT"), reference, seconds)

    def _compare(
        self, name: str, precision: str, output: ModelOutput, reference: ModelOutput, seconds: float
    ) -> ExportedFile:
        log.info("%s written in %.1f s", name, seconds)
        difference = compare_outputs(output, reference)
        rejection = rejection_reason(self.stage, precision, difference)
        return ExportedFile(name, precision, difference, output, seconds, rejection)


def rejection_reason(stage: ExportModel, precision: str, difference: OutputDifference) -> str:
    """Say by which limit of the stage a file differs too much; empty if by none."""
    if precision == "float32" and not difference.max_difference <= stage.max_difference:
        return (
            f"its output differs by up to {difference.max_difference:.3g} (--max_difference {stage.max_difference:g})"
        )
    if difference.dice is not None and difference.dice < stage.min_dice:
        return f"Dice of its foreground is {difference.dice:.4f} (--min_dice {stage.min_dice:g})"
    if difference.f1 is not None and difference.f1 < stage.min_f1:
        return f"F1 of its cells is {difference.f1:.4f} (--min_f1 {stage.min_f1:g})"
    return ""
