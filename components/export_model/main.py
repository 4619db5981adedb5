"""`export_model`: the forms of a model, each compared with the original before it is let out."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from components.export_model.card import usage
from components.export_model.comparison import Agreement, Output, agreement, output_of
from components.export_model.component import ExportModel
from components.export_model.exportable import INPUT, Exportable, exportable
from components.export_model.onnx_export import OPSET, onnx_network, write_onnx
from components.export_model.tensorrt_engine import engine_network, why_not, write_engine
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.manifest import copy_payload
from shared.imaging.overlays import outline, to_rgb8
from shared.imaging.tiling import centre_crop
from shared.models.files import CARD
from shared.models.network import Network
from shared.reporting.page import Page
from shared.stage.declaration import Result
from shared.system.devices import device
from shared.system.errors import UserError
from shared.system.log import log

ONNX, ENGINE, EXPORT = "model.onnx", "model.engine", "export.json"
LOOK = 1024
"""px; of a larger image its middle is compared."""
PANELS = 3


@dataclass(frozen=True)
class Form:
    """One exported file, compared."""

    file: str
    precision: str
    agreement: Agreement
    reason: str
    """Why it is not let out; empty: it is."""
    output: Output
    made_in: float
    """s"""


def run(stage: ExportModel) -> Result:
    """Write the forms, compare each with the original, delete those that differ."""
    where = device()
    missing = why_not(where)
    if missing and stage.tensorrt == "always":
        raise UserError(f"--tensorrt always: {missing}; set it to auto or never")
    subject = exportable(stage.model)
    reader = ImageReader(stage.images)
    keys = evenly_spaced(reader.keys("test") or reader.keys(), stage.max_images)
    if not keys:
        raise UserError("--images: none to compare on; give a set with some")
    images = [centre_crop(reader.read(key), LOOK) for key in keys]
    copy_payload(stage.model, stage.exported)
    original = _output(stage, subject, subject.network(where), images, "weights")
    forms = [_onnx(stage, subject, images, original)]
    if not missing and stage.tensorrt != "never" and not forms[0].reason:
        forms.append(_engine(stage, subject, images, original, where))
    for form in forms:
        if form.reason:
            (stage.exported / form.file).unlink()
            log.warning("%s is not let out: %s", form.file, form.reason)
    _describe(stage.exported, subject, forms)
    return Result(
        metrics=_metrics(forms),
        values={"accepted": not any(form.reason for form in forms)},
        page=_page(forms, original, images, "" if stage.tensorrt == "never" else missing),
    )


def _output(stage: ExportModel, subject: Exportable, network: Network, images: list[np.ndarray], name: str) -> Output:
    return output_of(network, subject, images, tile=stage.tile, batch_size=stage.batch_size, name=name)


def _onnx(stage: ExportModel, subject: Exportable, images: list[np.ndarray], original: Output) -> Form:
    started = time.monotonic()
    write_onnx(subject, stage.exported / ONNX)
    made_in = time.monotonic() - started
    log.info("%s written in %.1f s", ONNX, made_in)
    output = _output(stage, subject, onnx_network(stage.exported / ONNX), images, "ONNX")
    return _compared(stage, ONNX, "float32", output, original, made_in)


def _engine(stage: ExportModel, subject: Exportable, images: list[np.ndarray], original: Output, where: str) -> Form:
    started = time.monotonic()
    write_engine(
        stage.exported / ONNX,
        stage.exported / ENGINE,
        channels=subject.config.input.channels,
        multiple=subject.multiple,
        side=stage.tile * subject.config.input.downsample,
        batch=stage.batch_size,
        half=stage.precision == "float16",
    )
    made_in = time.monotonic() - started
    log.info("%s built in %.1f s", ENGINE, made_in)
    network = engine_network(stage.exported / ENGINE, subject.output, where)
    output = _output(stage, subject, network, images, "TensorRT")
    return _compared(stage, ENGINE, stage.precision, output, original, made_in)


def _compared(stage: ExportModel, file: str, precision: str, output: Output, original: Output, made_in: float) -> Form:
    found = agreement(output, original)
    reason = ""
    if precision == "float32" and not found.max_difference <= stage.max_difference:
        reason = f"it differs by up to {found.max_difference:.3g}, more than {stage.max_difference:g}"
    elif found.dice is not None and found.dice < stage.min_dice:
        reason = f"its foreground agrees with Dice {found.dice:.4f}, less than {stage.min_dice:g}"
    elif found.f1 is not None and found.f1 < stage.min_f1:
        reason = f"its cells agree with F1 {found.f1:.4f}, less than {stage.min_f1:g}"
    return Form(file, precision, found, reason, output, made_in)


def _describe(folder: Path, subject: Exportable, forms: list[Form]) -> None:
    """Write `export.json`, and how the files are used into the model card."""
    text = {
        "input": {
            "name": INPUT,
            "shape": ["batch", subject.config.input.channels, "height", "width"],
            "dtype": "float32",
        },
        "multiple": subject.multiple,
        "output": subject.output,
        "opset": OPSET,
        "forms": {
            form.file: {"precision": form.precision, "let_out": not form.reason, "reason": form.reason}
            | asdict(form.agreement)
            for form in forms
        },
    }
    (folder / EXPORT).write_text(json.dumps(text, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if not forms[0].reason:
        with (folder / CARD).open("a", encoding="utf-8") as card:
            card.write(usage(subject, ONNX))


def _metrics(forms: list[Form]) -> dict[str, float]:
    metrics = {"accepted": float(not any(form.reason for form in forms))}
    for form, name in zip(forms, ("onnx", "tensorrt"), strict=False):
        found = {f"{name}_{key}": value for key, value in asdict(form.agreement).items() if value is not None}
        metrics |= {key: value for key, value in found.items() if np.isfinite(value)}
    return metrics


def _page(forms: list[Form], original: Output, images: list[np.ndarray], missing: str) -> Page:
    page = Page("export_model")
    page.text(f"Every form predicted {len(images)} images, as the weights did, and was compared with them.")
    megapixels = sum(image.shape[0] * image.shape[1] for image in images) / 1e6
    header = ["form", "precision", "largest difference", "Dice", "F1 of cells", "s a megapixel", "made in, s", ""]
    rows: list[list[object]] = [["weights", "float32", "", "", "", original.seconds / megapixels, "", ""]]
    for form in forms:
        found = [form.agreement.max_difference, form.agreement.dice, form.agreement.f1]
        shown = ["" if value is None else value for value in found]
        speed = [form.output.seconds / megapixels, form.made_in]
        rows.append([form.file, form.precision, *shown, *speed, form.reason or "let out"])
    page.table(header, rows)
    if len(forms) == 1:
        page.text(f"No TensorRT engine: {missing or 'it was not asked for, or ONNX was not let out'}.")
    for i in range(min(PANELS, len(original.labels))):
        rgb = to_rgb8(images[i])
        shown_cells = [(outline(rgb, form.output.labels[i]), form.file) for form in forms]
        page.images([(rgb, "input"), (outline(rgb, original.labels[i]), "weights"), *shown_cells])
    return page
