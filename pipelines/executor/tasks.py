"""One task of a graph: the values of its inputs, its cache key, what the container is told, and what it left behind."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.registry import declaration, names
from pipelines.config import check
from pipelines.executor.cache import Made, Receipt, digest_of
from pipelines.executor.ir import PLACEHOLDER, number
from pipelines.executor.task_graph import Constant, Output, Parameter, Source, Task, Text, leads
from shared import store
from shared.artifacts.manifest import is_artifact, read_manifest
from shared.stage.declaration import Stage, is_external
from shared.stage.version import task_key
from shared.system.errors import ArtifactError, UserError

SUFFIXES = {"system.HTML": ".html", "system.Metrics": ".json", "system.ClassificationMetrics": ".json"}
MISSING = object()
"""Value of a source that is not known yet."""


@dataclass
class Value:
    """An artifact that passes between tasks."""

    uri: str
    digest: str
    schema_title: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Prepared:
    """A task whose inputs are all there."""

    task: Task
    folder: Path
    key: str
    parameters: dict[str, Any]
    inputs: dict[str, Value]
    stage: Stage | None
    """The validated declaration, its ports being the paths in the run folder; None where the task is no stage."""
    version: str = ""
    """Code version that the key was made with; empty where the task is no stage."""


def output_path(task: Task, output: str, folder: Path) -> Path:
    """Where a task writes an artifact: `folder/images`, `folder/report.html`."""
    return folder / f"{output}{SUFFIXES.get(task.outputs[output].get('schemaTitle', ''), '')}"


def value_path(output: str, folder: Path) -> Path:
    """Where a task writes an output parameter."""
    return folder / "values" / output


def resolve(source: Source, parameters: dict[str, Any], done: dict[str, Receipt]) -> Any:
    """The value of a parameter's source; MISSING while the task that makes it has not ended."""
    if isinstance(source, Constant):
        return source.value
    if isinstance(source, Parameter):
        return parameters.get(source.name)
    if isinstance(source, Output):
        return done[source.task].values[source.key] if source.task in done else MISSING
    return _text(source, parameters, done)


def _text(source: Text, parameters: dict[str, Any], done: dict[str, Receipt]) -> Any:
    values = {name: resolve(part, parameters, done) for name, part in source.values.items()}
    if MISSING in values.values():
        return MISSING
    return PLACEHOLDER.sub(lambda match: _plain(values[match[1]]), source.template)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def known_parameters(
    task: Task, parameters: dict[str, Any], done: dict[str, Receipt]
) -> tuple[dict[str, Any], set[str]]:
    """The task's parameter values known by now, and the names of the others."""
    values = {name: resolve(source, parameters, done) for name, source in task.parameters.items()}
    values = {name: value for name, value in values.items() if value is not None}
    later = {name for name, value in values.items() if value is MISSING}
    return {name: number(task.kinds[name], values[name]) for name in values if name not in later}, later


def check_known(task: Task, parameters: dict[str, Any]) -> None:
    """Check, before anything runs, what is known of a stage's parameters, and that paths it is given exist."""
    if not task.stage:
        return
    if task.stage not in names():
        raise UserError(f"{task.name}: there is no stage {task.stage!r} under components/")
    stage = declaration(task.stage)
    values, later = known_parameters(task, parameters, {})
    checked = check(stage, values, task.name, later)
    for name in externals(stage):
        location = checked.get(name, "")
        if location and "://" not in location and not Path(location).exists():
            raise UserError(f"{task.name}.{name}: {location}: no such file or folder")


def externals(stage: type[Stage]) -> list[str]:
    """Parameters that are paths or uris which the stage reads by itself."""
    return [name for name, info in stage.parameters().items() if is_external(info)]


def wanted(task: Task, parameters: dict[str, Any], done: dict[str, Receipt], left_out: set[str]) -> bool:
    """Whether the task's conditions hold and nothing it needs was left out."""
    sources = [*task.parameters.values(), *task.artifacts.values(), *(item.source for item in task.conditions)]
    if any(output.task in left_out for source in sources for output in leads(source)):
        return False
    return all((resolve(c.source, parameters, done) == c.value) == c.equal for c in task.conditions)


def imported(task: Task, run: Path, parameters: dict[str, Any], done: dict[str, Receipt]) -> Receipt:
    """Bring what an importer names: an artifact or file at a path, or an artifact in S3 into the run folder."""
    uri = str(resolve(task.import_uri or Constant(""), parameters, done))
    path = Path(uri).absolute()
    if "://" in uri:
        path = run / task.name / "artifact"
        store.fetch(uri, path)
    title = next(iter(task.outputs.values())).get("schemaTitle", "")
    made = Made(path=str(path), kind=title, schema_title=title, digest=digest_of(path))
    return Receipt(key="", seconds=0.0, outputs=dict.fromkeys(task.outputs, made))


def prepare(
    task: Task, run: Path, parameters: dict[str, Any], done: dict[str, Receipt], versions: dict[str, str]
) -> Prepared:
    """Gather the inputs of a task whose predecessors have ended. versions: stage -> code version where it will run."""
    folder = run / task.name
    values, _ = known_parameters(task, parameters, done)
    inputs = {name: _artifact(source, run, done) for name, source in task.artifacts.items()}
    digests = {name: value.digest for name, value in inputs.items()}
    stage = None
    if task.stage:
        kind = declaration(task.stage)
        values = check(kind, values, task.name)
        places = {name: Path(value.uri) for name, value in inputs.items()}
        places |= {name: output_path(task, name, folder) for name in task.outputs}
        stage = kind.model_validate({**values, **places})
        key = task_key(task.stage, values, digests | _outside(kind, values), versions[task.stage])
    else:
        key = task_key(json.dumps([task.image, task.command, task.env]), values, digests, "no stage")
    return Prepared(task, folder, key, values, inputs, stage, versions.get(task.stage, ""))


def _artifact(source: Source, run: Path, done: dict[str, Receipt]) -> Value:
    if not isinstance(source, Output):
        raise UserError(f"an artifact must come from a task, not from {source}")
    made = done[source.task].outputs[source.key]
    path = Path(made.path)  # absolute where an importer only points at it
    return Value(
        str(path if path.is_absolute() else run / source.task / path), made.digest, made.schema_title, made.metadata
    )


def _outside(stage: type[Stage], values: dict[str, Any]) -> dict[str, str]:
    """Fingerprints of what the stage reads by itself, unless whoever submitted gave one: names are not contents."""
    from shared.readers.fingerprint import fingerprint

    return {
        f"{name} (outside)": fingerprint(values[name])
        for name in externals(stage)
        if values.get(name) and not values.get("fingerprint")
    }


def executor_input(ready: Prepared) -> dict[str, Any]:
    """What Kubeflow's launcher would tell the container."""
    task, folder = ready.task, ready.folder

    def artifact(name: str, uri: str, title: str, metadata: dict[str, Any]) -> dict[str, Any]:
        item = {
            "name": name,
            "uri": uri,
            "type": {"schemaTitle": title, "schemaVersion": "0.0.1"},
            "metadata": metadata,
        }
        return {"artifacts": [item]}

    return {
        "inputs": {
            "parameterValues": ready.parameters,
            "artifacts": {n: artifact(n, v.uri, v.schema_title, v.metadata) for n, v in ready.inputs.items()},
        },
        "outputs": {
            "parameters": {name: {"outputFile": str(value_path(name, folder))} for name in task.values},
            "artifacts": {
                name: artifact(name, str(output_path(task, name, folder)), kind.get("schemaTitle", ""), {})
                for name, kind in task.outputs.items()
            },
            "outputFile": str(folder / "executor_output.json"),
        },
    }


def command(ready: Prepared) -> list[str]:
    """The container's command with Kubeflow's placeholders replaced."""
    task, folder = ready.task, ready.folder
    replacements = {"{{$}}": json.dumps(executor_input(ready))}
    for name, value in ready.parameters.items():
        replacements[f"{{{{$.inputs.parameters['{name}']}}}}"] = _plain(value)
    places = {("inputs", name): value.uri for name, value in ready.inputs.items()}
    places |= {("outputs", name): str(output_path(task, name, folder)) for name in task.outputs}
    for (side, name), place in places.items():
        for ending in ("path", "uri"):
            replacements[f"{{{{$.{side}.artifacts['{name}'].{ending}}}}}"] = place
    for name in task.values:
        replacements[f"{{{{$.outputs.parameters['{name}'].output_file}}}}"] = str(value_path(name, folder))
    words = []
    for word in task.command:
        for placeholder, text in replacements.items():
            word = word.replace(placeholder, text)
        words.append(word)
    return words


# --- afterwards ---------------------------------------------------------------------------------------------------


def collect(ready: Prepared, seconds: float) -> Receipt:
    """Read what a task that exited with 0 left behind. Raises ArtifactError where something it owes is missing.

    The receipt has no key where the code was edited meanwhile: whatever was computed, it is not what the key says.
    """
    task, folder = ready.task, ready.folder
    said = _said(folder / "executor_output.json")
    outputs, key = {}, ready.key
    for name, kind in task.outputs.items():
        path = output_path(task, name, folder)
        title = kind.get("schemaTitle", "")
        if title in SUFFIXES and not path.exists():
            continue  # pages, metrics and the like are optional
        metadata = said.get("artifacts", {}).get(name, {}).get("artifacts", [{}])[0].get("metadata", {})
        if ready.stage and is_artifact(path) and read_manifest(path).code_version != ready.version:
            key = ""
        outputs[name] = _made(path, folder, title, metadata)
    values = {name: _value(name, kind, folder, said) for name, kind in task.values.items()}
    skipped = next((str(made.metadata["skipped"]) for made in outputs.values() if made.metadata.get("skipped")), "")
    return Receipt(
        key=key,
        seconds=seconds,
        outputs=outputs,
        values=values,
        metrics=_metrics(outputs, folder),
        skipped=skipped,
    )


def _made(path: Path, folder: Path, title: str, metadata: dict[str, Any]) -> Made:
    if is_artifact(path):  # sealed a moment ago; whoever reads it checks the contents
        manifest = read_manifest(path)
        kind, digest = manifest.type, manifest.digest
        metadata = {**metadata, "digest": digest, "skipped": manifest.skipped or ""}
    else:
        kind, digest = title, digest_of(path)
    relative = path.relative_to(folder).as_posix()
    return Made(path=relative, kind=kind, schema_title=title, digest=digest, metadata=metadata)


def _said(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {}


def _value(name: str, kind: str, folder: Path, said: dict[str, Any]) -> Any:
    """An output parameter: from its file, as Kubeflow's launcher reads it, else from executor_output.json."""
    path = value_path(name, folder)
    if not path.is_file():
        if name in said.get("parameterValues", {}):
            return said["parameterValues"][name]
        raise ArtifactError(f"{path}: the task ended well but did not write its output parameter {name!r}")
    text = path.read_text()
    if kind == "STRING":
        return text
    try:
        return number(kind, json.loads(text.strip().lower() if kind == "BOOLEAN" else text))
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path}: {text[:50]!r} is no {kind}") from error


def _metrics(outputs: dict[str, Made], folder: Path) -> dict[str, float]:
    found: dict[str, Any] = {}
    for made in outputs.values():
        if made.schema_title == "system.Metrics":
            found |= made.metadata or _said(folder / made.path)
    return {name: float(value) for name, value in found.items() if isinstance(value, (int, float))}
