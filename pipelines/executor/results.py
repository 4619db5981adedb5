"""Read the results of a task that exited with 0: artifacts, output parameters, metrics."""

import json
from pathlib import Path
from typing import Any

from pipelines.executor.cache import FinishedOutput, FinishedTask, digest_of
from pipelines.executor.tasks import FILE_ENDINGS, PreparedTask, output_path, value_path
from pipelines.ir.reader import number
from shared.artifacts.manifest import is_artifact, read_manifest
from shared.system.errors import ArtifactError


def collect(prepared: PreparedTask, seconds: float) -> FinishedTask:
    """Read the results. Raises ArtifactError if a required output is missing.

    The result has no key if the code was edited while the task ran: it is not what the key stands for.
    """
    task, folder = prepared.task, prepared.folder
    reported = _read_json(folder / "executor_output.json")
    outputs, key = {}, prepared.key
    for name, kind in task.outputs.items():
        path = output_path(task, name, folder)
        title = kind.get("schemaTitle", "")
        if title in FILE_ENDINGS and not path.exists():
            continue
        metadata = reported.get("artifacts", {}).get(name, {}).get("artifacts", [{}])[0].get("metadata", {})
        if prepared.stage and is_artifact(path) and read_manifest(path).code_version != prepared.version:
            key = ""
        outputs[name] = _finished_output(path, folder, title, metadata)
    return FinishedTask(
        key=key,
        seconds=seconds,
        outputs=outputs,
        values={name: _value(name, kind, folder, reported) for name, kind in task.values.items()},
        metrics=_metrics(outputs, folder),
        skipped=_from_metadata("skipped", outputs),
        remark=_from_metadata("remark", outputs),
    )


def _finished_output(path: Path, folder: Path, title: str, metadata: dict[str, Any]) -> FinishedOutput:
    if is_artifact(path):  # sealed a moment ago; the stage that reads it checks the contents
        manifest = read_manifest(path)
        kind, digest = manifest.type, manifest.digest
        metadata = {**metadata, "digest": digest, "skipped": manifest.skipped or ""}
    else:
        kind, digest = title, digest_of(path)
    relative = path.relative_to(folder).as_posix()
    return FinishedOutput(path=relative, kind=kind, schema_title=title, digest=digest, metadata=metadata)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {}


def _value(name: str, kind: str, folder: Path, reported: dict[str, Any]) -> Any:
    """Read an output parameter from its file, as Kubeflow's launcher does, else from executor_output.json."""
    path = value_path(name, folder)
    if not path.is_file():
        if name in reported.get("parameterValues", {}):
            return reported["parameterValues"][name]
        raise ArtifactError(f"{path}: missing; the task succeeded without writing its output parameter {name!r}")
    text = path.read_text()
    if kind == "STRING":
        return text
    try:
        return number(kind, json.loads(text.strip().lower() if kind == "BOOLEAN" else text))
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path}: {text[:50]!r} is not a {kind}") from error


def _metrics(outputs: dict[str, FinishedOutput], folder: Path) -> dict[str, float]:
    found: dict[str, Any] = {}
    for output in outputs.values():
        if output.schema_title == "system.Metrics":
            found |= output.metadata or _read_json(folder / output.path)
    return {name: float(value) for name, value in found.items() if isinstance(value, (int, float))}


def _from_metadata(name: str, outputs: dict[str, FinishedOutput]) -> str:
    """Return what the stage wrote into its artifacts' metadata under this name; empty if it wrote nothing."""
    return next((str(output.metadata[name]) for output in outputs.values() if output.metadata.get(name)), "")
