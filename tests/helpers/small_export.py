"""Runs of `export_model`, models of random weights, and spoilt graphs, for its tests."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from components.export_model.component import ExportModel
from components.export_model.evaluation_set import EvaluationSet, Truth
from components.export_model.exportable import load_exportable
from components.export_model.exported_files import ExportedFile, ModelExport
from components.export_model.main import run
from shared.artifacts.kinds import Model
from shared.artifacts.manifest import seal
from shared.models.backbones.vit import Encoder
from shared.models.config import (
    DetectorArchitecture,
    DetectorConfig,
    DetectorPostProcessing,
    EncoderConfig,
    ModelInput,
    SegmentorArchitecture,
    SegmentorConfig,
    VitArchitecture,
)
from shared.models.detector import Detector
from shared.models.files import save_model
from shared.models.segmentor import Segmentor
from shared.stage.declaration import Result

DETECTOR = DetectorConfig(
    architecture=DetectorArchitecture(
        backbone=VitArchitecture(size="nano", width=32, depth=1, heads=2, patch=16),
        classes=("large", "small"),
        queries=20,
        width=32,
        heads=2,
        feed_forward=48,
        decoder_layers=1,
    ),
    input=ModelInput(channels=1, crop_px=64),
    postprocessing=DetectorPostProcessing(score_threshold=0.3),
)


def export(images: Path, model: Path, folder: Path, **given: Any) -> tuple[Result, Path]:
    """Run the stage, without INT8 unless `given` asks for it; the result, and the folder of the exported model."""
    out = folder / "exported"
    out.mkdir(parents=True)
    parameters = {"int8": "never", "batch_size": 4} | given
    result = run(ExportModel(images=images, model=model, exported=out, accepted=folder / "accepted", **parameters))
    return result, out


def write_random_model(folder: Path, kind: str, **more: Any) -> Path:
    """An encoder or a segmentor of random weights, large enough that its output moves with the input."""
    torch.manual_seed(0)
    seen = ModelInput(channels=2, crop_px=96, downsample=more.pop("downsample", 1))
    vit = VitArchitecture.preset("nano", 8).model_copy(update={"depth": 2, **more})
    if kind == "segmentor":
        config: Any = SegmentorConfig(architecture=SegmentorArchitecture(encoder=vit), input=seen)
        module: nn.Module = Segmentor(config)
    else:
        config = EncoderConfig(architecture=vit, input=seen)
        module = Encoder(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return _save(folder, module, config)


def write_random_detector(folder: Path) -> Path:
    """A detector of random weights; some of its scores exceed the threshold."""
    torch.manual_seed(0)
    detector = Detector(DETECTOR)
    with torch.no_grad():
        for name, parameter in detector.named_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
            if "class_embed" in name or "enc_score_head" in name:
                parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.5) - 0.5)
    return _save(folder, detector, DETECTOR)


def _save(folder: Path, module: nn.Module, config: Any) -> Path:
    save_model(folder, module.state_dict(), config, "# Random")
    seal(folder, Model)
    return folder


class Spoilt(nn.Module):
    """A network with a mistake before or behind it."""

    def __init__(self, module: nn.Module, before: Callable[[Tensor], Tensor], behind: Callable[[Any], Any]) -> None:
        super().__init__()
        self.module, self.before, self.behind = module, before, behind

    def forward(self, image: Tensor) -> Any:
        """Images -> wrong outputs."""
        return self.behind(self.module(self.before(image)))


def export_spoilt(
    model: Path,
    folder: Path,
    images: list[np.ndarray],
    truth: list[Truth],
    *,
    before: Callable[[Tensor], Tensor] = lambda image: image,
    behind: Callable[[Any], Any] = lambda outputs: outputs,
) -> ExportedFile:
    """Write `model.onnx` with a mistake, and compare it with the right weights on images (H, W, C)."""
    subject, evaluation = load_exportable(model), EvaluationSet(images, truth, images)
    stage = ExportModel(images=folder, model=model, exported=folder, accepted=folder, batch_size=4)
    right = ModelExport(stage, subject, evaluation, "cpu")
    wrong = ModelExport(stage, replace(subject, module=Spoilt(subject.module, before, behind)), evaluation, "cpu")
    wrong.weights = right.weights
    return wrong.onnx()
