"""Describe the exported files: `export.json`, `speed.json`, the model card, the metrics and the remark."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from components.export_model.card import usage
from components.export_model.exportable import OPSET, Exportable
from components.export_model.exported_files import ExportedFile, ModelExport
from components.export_model.gate import summary
from shared.artifacts.manifest import SPEED_FILE
from shared.models.files import CARD
from shared.models.runtimes import ENGINE_FILE, EXPORT_FILE, INPUT, INT8_FILE, ONNX_FILE
from shared.system.devices import threads

_PREFIXES = {ONNX_FILE: "onnx", INT8_FILE: "int8", ENGINE_FILE: "tensorrt"}
"""File -> beginning of the names of its metrics."""


def describe(export: ModelExport, files: Sequence[ExportedFile]) -> None:
    """Write `export.json` and `speed.json`, and the use of the ONNX files into the model card."""
    folder, subject = export.stage.exported, export.subject
    sides = ("height", "width") if subject.metadata.multiple else (subject.metadata.tile,) * 2
    text = {
        "input": {"name": INPUT, "shape": ["batch", subject.metadata.channels, *sides], "dtype": "float32"},
        "multiple": subject.metadata.multiple,
        "outputs": list(subject.outputs),
        "opset": OPSET,
        "files": {file.name: _file(file) for file in files},
        "metadata": subject.metadata.model_dump(mode="json"),
    }
    _write(folder / EXPORT_FILE, text)
    tile = list(export.timed_tile.shape[1:]) if export.timings else []
    speed = {
        "device": export.device,
        "threads": threads(),
        "tile": tile,
        "files": {
            name: [asdict(timing) | {"per_second": timing.per_second} for timing in timings]
            for name, timings in export.timings.items()
        },
    }
    _write(folder / SPEED_FILE, speed)
    _describe_use(folder, subject, [file.name for file in files if file.accepted and file.name != ENGINE_FILE])


def _file(file: ExportedFile) -> dict[str, Any]:
    """What `export.json` says of a file. It holds no figure that depends on the time or the load of the machine."""
    compared = file.compared
    return {
        "precision": file.precision,
        "quantised": file.method,
        "accepted": file.accepted,
        "rejection": file.rejection,
        "refused_before": list(file.attempts),
        "max_difference": compared.max_difference if np.isfinite(compared.max_difference) else None,
        "metrics_against": compared.against,
        "metrics": compared.metrics,
        "metrics_of_weights": compared.reference,
    }


def _write(path: Path, text: dict[str, Any]) -> None:
    path.write_text(json.dumps(text, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _describe_use(folder: Path, subject: Exportable, names: list[str]) -> None:
    card = folder / CARD
    before = card.read_text(encoding="utf-8").split(f"\n## {ONNX_FILE}\n")[0]  # of an earlier export
    card.write_text(before + (usage(subject, names) if names else ""), encoding="utf-8")


def metrics(export: ModelExport, files: Sequence[ExportedFile], accepted: bool) -> dict[str, float]:
    """Metrics of the stage: of each file its difference, its metrics, its speed."""
    found = {"accepted": float(accepted)}
    for file in files:
        prefix = _PREFIXES[file.name]
        named = {"max_difference": file.compared.max_difference} | file.compared.metrics
        if file.speedup is not None:
            named["speedup"] = file.speedup
        for timing in export.timings.get(file.name, []):
            named |= {
                f"median_ms_batch_{timing.batch}": timing.median_ms,
                f"p95_ms_batch_{timing.batch}": timing.p95_ms,
            }
            named["tiles_per_s"] = timing.per_second
        found |= {f"{prefix}_{name}": value for name, value in named.items() if np.isfinite(value)}
    return found


def remark(files: Sequence[ExportedFile], missing: str) -> str:
    """Say for each file whether it agrees with the weights; missing: why there is no TensorRT engine."""
    sentences = [_sentence(file) for file in files]
    if missing:
        sentences.append(f"No TensorRT engine: {missing}.")
    return " ".join(sentences)


def _sentence(file: ExportedFile) -> str:
    speed = "" if file.speedup is None else f", {file.speedup:.2f} times the speed of {ONNX_FILE}"
    if not file.accepted:
        return f"{file.name} is deleted: {file.rejection}{speed}."
    higher = f" ({file.precision}; {'; '.join(file.attempts)})" if file.attempts else ""
    return f"{file.name} agrees with the weights ({summary(file.compared)}{speed}){higher}."
