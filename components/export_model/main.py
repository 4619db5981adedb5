"""Export a model, and delete each exported file that does not agree with the weights."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from components.export_model.card import usage
from components.export_model.component import ExportModel
from components.export_model.exportable import OPSET, Exportable, load_exportable
from components.export_model.exported_files import ExportedFile, ModelExport
from components.export_model.page import make_page
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.manifest import copy_payload
from shared.imaging.tiling import centre_crop
from shared.models.files import CARD
from shared.models.runtimes import ENGINE_FILE, EXPORT_FILE, INPUT, ONNX_FILE
from shared.models.runtimes.tensorrt_runtime import missing_requirement
from shared.stage.declaration import Result
from shared.system.devices import device
from shared.system.errors import UserError
from shared.system.log import log

_MAX_SIDE = 1024
"""px; of larger images the centre is compared."""


def run(stage: ExportModel) -> Result:
    """Write the files, compare each with the weights, and delete those that differ."""
    where = device()
    missing = missing_requirement(where)
    if missing and stage.tensorrt == "always":
        raise UserError(f"--tensorrt always: {missing}; set it to auto or never")
    export = ModelExport(stage, load_exportable(stage.model), _images(stage), where)
    copy_payload(stage.model, stage.exported)
    reference = export.weights()
    files = [export.onnx(reference)]
    if not missing and stage.tensorrt != "never" and files[0].accepted:
        files.append(export.engine(reference))
    for file in files:
        if not file.accepted:
            (stage.exported / file.name).unlink()
    _describe(stage.exported, export.subject, files)
    remark = _remark(files, "" if stage.tensorrt == "never" else missing)
    accepted = all(file.accepted for file in files)
    (log.info if accepted else log.warning)("%s", remark)
    return Result(
        metrics=_metrics(files),
        values={"accepted": accepted},
        page=make_page(export, reference, files, remark),
        remark=remark,
    )


def _images(stage: ExportModel) -> list[np.ndarray]:
    """Read the images to compare on, (H, W, C) each. Raises UserError if there are none."""
    reader = ImageReader(stage.images)
    keys = evenly_spaced(reader.keys("test") or reader.keys(), stage.max_images)
    if not keys:
        raise UserError("--images: no image to compare on; give a set that is not empty")
    return [centre_crop(reader.read(key), _MAX_SIDE) for key in keys]


def _describe(folder: Path, subject: Exportable, files: list[ExportedFile]) -> None:
    """Write `export.json`, and the use of the ONNX file into the model card."""
    compared = {
        file.name: {"precision": file.precision, "accepted": file.accepted, "rejection": file.rejection}
        | asdict(file.difference)
        for file in files
    }
    channels = subject.config.input.channels
    text = {
        "input": {"name": INPUT, "shape": ["batch", channels, "height", "width"], "dtype": "float32"},
        "multiple": subject.multiple,
        "output": subject.output,
        "opset": OPSET,
        "files": compared,
        "metadata": subject.metadata.model_dump(mode="json"),
    }
    (folder / EXPORT_FILE).write_text(json.dumps(text, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if files[0].accepted:
        with (folder / CARD).open("a", encoding="utf-8") as card:
            card.write(usage(subject, ONNX_FILE))


def _metrics(files: list[ExportedFile]) -> dict[str, float]:
    metrics = {"accepted": float(all(file.accepted for file in files))}
    prefixes = {ONNX_FILE: "onnx", ENGINE_FILE: "tensorrt"}
    for file in files:
        known = {name: value for name, value in asdict(file.difference).items() if value is not None}
        metrics |= {f"{prefixes[file.name]}_{name}": value for name, value in known.items() if np.isfinite(value)}
    return metrics


def _remark(files: list[ExportedFile], missing: str) -> str:
    """Say for each file whether it agrees with the weights; missing: why there is no TensorRT engine."""
    sentences = []
    for file in files:
        measured = f"F1 of cells {file.difference.f1:.3f}" if file.difference.f1 is not None else ""
        measured = measured or f"largest difference {file.difference.max_difference:.2g}"
        agrees = f"{file.name} agrees with the weights ({measured})."
        sentences.append(agrees if file.accepted else f"{file.name} is deleted: {file.rejection}.")
    if missing:
        sentences.append(f"No TensorRT engine: {missing}.")
    return " ".join(sentences)
