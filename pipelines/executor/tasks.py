"""Prepare a task of a graph: the values of its inputs, where its outputs go, and its cache key."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.registry import declaration, names
from pipelines.executor.cache import FinishedOutput, FinishedTask, digest_of
from pipelines.ir.reader import number
from pipelines.ir.sources import PLACEHOLDER
from pipelines.ir.task_graph import Constant, Parameter, Source, Task, TaskOutput, Text, task_outputs
from pipelines.validation import check, external_parameters
from shared import store
from shared.stage.declaration import Stage
from shared.stage.version import task_key
from shared.system.errors import UserError

FILE_ENDINGS = {"system.HTML": ".html", "system.Metrics": ".json", "system.ClassificationMetrics": ".json"}
"""Kubeflow's type of an output that is a file, not a folder -> ending of its name. These outputs are optional."""
_UNKNOWN = object()
"""Value of a source that is an output of a task which has not ended."""


@dataclass
class InputArtifact:
    """An artifact that a task reads."""

    uri: str
    digest: str
    schema_title: str
    """Kubeflow's type, such as system.Dataset."""
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class PreparedTask:
    """A task with all of its inputs."""

    task: Task
    folder: Path
    key: str
    parameters: dict[str, Any]
    inputs: dict[str, InputArtifact]
    stage: Stage | None
    """The validated declaration, its ports being paths in the run folder; None if the task is not a stage."""
    version: str = ""
    """Code version in the key; empty if the task is not a stage."""


def output_path(task: Task, output: str, folder: Path) -> Path:
    """Return where a task writes an artifact: `folder/images`, `folder/report.html`."""
    return folder / f"{output}{FILE_ENDINGS.get(task.outputs[output].get('schemaTitle', ''), '')}"


def value_path(output: str, folder: Path) -> Path:
    """Return where a task writes an output parameter."""
    return folder / "values" / output


def as_text(value: Any) -> str:
    """Return a parameter's value as it stands in a text or a command: JSON, but a string without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def check_known(task: Task, parameters: dict[str, Any]) -> None:
    """Check the parameters of a stage that are known before a task runs, and that the paths in them exist.

    parameters: run-time parameters of the graph. Raises UserError.
    """
    if not task.stage:
        return
    if task.stage not in names():
        raise UserError(f"{task.name}: there is no stage {task.stage!r} under components/; compile the graph again")
    stage = declaration(task.stage)
    values, later = _known_parameters(task, parameters, {})
    checked = check(stage, values, task.name, later)
    for name in external_parameters(stage):
        location = checked.get(name, "")
        if location and "://" not in location and not Path(location).exists():
            raise UserError(f"{task.name}.{name}: {location}: no such file or folder")


def should_run(task: Task, parameters: dict[str, Any], done: dict[str, FinishedTask], omitted: set[str]) -> bool:
    """Whether the task's conditions hold and none of the tasks that it reads from is omitted."""
    sources = [*task.parameters.values(), *task.artifacts.values(), *(item.source for item in task.conditions)]
    if any(output.task in omitted for source in sources for output in task_outputs(source)):
        return False
    return all((_resolve(c.source, parameters, done) == c.value) == c.equal for c in task.conditions)


def import_artifact(task: Task, run: Path, parameters: dict[str, Any], done: dict[str, FinishedTask]) -> FinishedTask:
    """Execute an importer: refer to an artifact or file on this machine, or fetch an artifact from S3."""
    uri = str(_resolve(task.import_uri or Constant(""), parameters, done))
    path = Path(uri).absolute()
    if "://" in uri:
        path = run / task.name / "artifact"
        store.fetch(uri, path)
    title = next(iter(task.outputs.values())).get("schemaTitle", "")
    output = FinishedOutput(path=str(path), kind=title, schema_title=title, digest=digest_of(path))
    return FinishedTask(key="", seconds=0.0, outputs=dict.fromkeys(task.outputs, output))


def prepare(
    task: Task, run: Path, parameters: dict[str, Any], done: dict[str, FinishedTask], versions: dict[str, str]
) -> PreparedTask:
    """Collect the inputs of a task whose predecessors have ended. versions: stage -> code version where it will run."""
    folder = run / task.name
    values, _ = _known_parameters(task, parameters, done)
    inputs = {name: _input_artifact(source, run, done) for name, source in task.artifacts.items()}
    digests = {name: artifact.digest for name, artifact in inputs.items()}
    if not task.stage:
        key = task_key(json.dumps([task.image, task.command, task.env]), values, digests, "no stage")
        return PreparedTask(task, folder, key, values, inputs, None)
    declared = declaration(task.stage)
    values = check(declared, values, task.name)
    paths = {name: Path(artifact.uri) for name, artifact in inputs.items()}
    paths |= {name: output_path(task, name, folder) for name in task.outputs}
    version = versions[task.stage]
    key = task_key(task.stage, values, digests | _external_fingerprints(declared, values), version)
    return PreparedTask(task, folder, key, values, inputs, declared.model_validate({**values, **paths}), version)


def _known_parameters(
    task: Task, parameters: dict[str, Any], done: dict[str, FinishedTask]
) -> tuple[dict[str, Any], set[str]]:
    """Return the parameter values that are known by now, and the names of the other parameters."""
    values = {name: _resolve(source, parameters, done) for name, source in task.parameters.items()}
    values = {name: value for name, value in values.items() if value is not None}
    later = {name for name, value in values.items() if value is _UNKNOWN}
    return {name: number(task.kinds[name], values[name]) for name in values if name not in later}, later


def _resolve(source: Source, parameters: dict[str, Any], done: dict[str, FinishedTask]) -> Any:
    """Return the value of a source; _UNKNOWN while the task that it comes from has not ended."""
    if isinstance(source, Constant):
        return source.value
    if isinstance(source, Parameter):
        return parameters.get(source.name)
    if isinstance(source, TaskOutput):
        return done[source.task].values[source.key] if source.task in done else _UNKNOWN
    return _resolve_text(source, parameters, done)


def _resolve_text(source: Text, parameters: dict[str, Any], done: dict[str, FinishedTask]) -> Any:
    values = {name: _resolve(part, parameters, done) for name, part in source.values.items()}
    if _UNKNOWN in values.values():
        return _UNKNOWN
    return PLACEHOLDER.sub(lambda match: as_text(values[match[1]]), source.template)


def _input_artifact(source: Source, run: Path, done: dict[str, FinishedTask]) -> InputArtifact:
    if not isinstance(source, TaskOutput):
        raise UserError(f"an artifact must come from a task, not from {source}")
    output = done[source.task].outputs[source.key]
    path = Path(output.path)  # absolute if an importer refers to it
    uri = str(path if path.is_absolute() else run / source.task / path)
    return InputArtifact(uri, output.digest, output.schema_title, output.metadata)


def _external_fingerprints(stage: type[Stage], values: dict[str, Any]) -> dict[str, str]:
    """Fingerprints of what the stage itself reads, unless the graph passes one: the key must change with the files."""
    from shared.readers.fingerprint import fingerprint

    return {
        f"{name} (outside)": fingerprint(values[name])
        for name in external_parameters(stage)
        if values.get(name) and not values.get("fingerprint")
    }
