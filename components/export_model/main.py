"""Export a model, and delete each exported file that is not as good as the weights."""

from components.export_model.component import ExportModel
from components.export_model.description import describe, metrics, remark
from components.export_model.evaluation_set import read_evaluation_set
from components.export_model.exportable import load_exportable
from components.export_model.exported_files import ExportedFile, ModelExport
from components.export_model.page import make_page
from shared.artifacts.manifest import SPEED_FILE, copy_payload
from shared.models.files import is_absent
from shared.models.runtimes import ENGINE_FILE, EXPORT_FILE, INT8_FILE, ONNX_FILE
from shared.models.runtimes.tensorrt_runtime import missing_requirement
from shared.stage.declaration import Result
from shared.system.devices import device
from shared.system.errors import UserError
from shared.system.log import log


def run(stage: ExportModel) -> Result:
    """Write the files, compare each with the weights, and delete those that are worse than the limits."""
    if is_absent(stage.model):
        copy_payload(stage.model, stage.exported)
        return Result(skipped="there is no model to export", values={"accepted": False})
    where = device()
    missing = missing_requirement(where)
    if missing and stage.tensorrt == "always":
        raise UserError(f"--tensorrt always: {missing}; set it to auto or never")
    subject = load_exportable(stage.model, stage.tile)
    export = ModelExport(stage, subject, read_evaluation_set(stage, subject), where)
    copy_payload(stage.model, stage.exported)
    for name in (ONNX_FILE, INT8_FILE, ENGINE_FILE, EXPORT_FILE, SPEED_FILE):  # of an earlier export
        (stage.exported / name).unlink(missing_ok=True)
    files = _export(export, with_engine=not missing and stage.tensorrt != "never")
    for file in files:
        if not file.accepted:
            (stage.exported / file.name).unlink()
    accepted = _is_accepted(stage, files)
    describe(export, files)
    text = remark(files, "" if stage.tensorrt == "never" else missing)
    (log.info if accepted else log.warning)("%s", text)
    return Result(
        metrics=metrics(export, files, accepted),
        values={"accepted": accepted},
        page=make_page(export, files, text),
        remark=text,
    )


def _export(export: ModelExport, *, with_engine: bool) -> list[ExportedFile]:
    """Write the files that are wanted; INT8 and the engine are made from an ONNX file that is accepted."""
    files = [export.onnx()]
    if files[0].accepted and export.stage.int8 != "never":
        files.append(export.int8(files[0]))
    if files[0].accepted and with_engine:
        files.append(export.engine())
    export.measure([file for file in files if file.accepted])
    return files


def _is_accepted(stage: ExportModel, files: list[ExportedFile]) -> bool:
    needed = {ONNX_FILE: True, INT8_FILE: stage.int8 == "always", ENGINE_FILE: stage.tensorrt == "always"}
    kept = {file.name for file in files if file.accepted}
    return all(name in kept for name, wanted in needed.items() if wanted)
