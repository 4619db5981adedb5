"""Start a stage: from a command line by hand, or from the executor input that Kubeflow hands a container.

Both ways end in the same place: parameters are checked, inputs are brought here and checked against their manifests,
`run(stage)` computes into folders beside the outputs, and only then are those sealed and moved into place.
"""

import argparse
import errno
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from shared import checkpoints
from shared.artifacts import ImageSet, Manifest, is_artifact, read_manifest, seal, verify
from shared.errors import ArtifactError, UserError
from shared.log import log, set_up_logging
from shared.rerun import rerun_command
from shared.stage import Port, Result, Stage, plain_type
from shared.version import code_version, task_key

Run = Callable[[Any], Result]


@dataclass
class Task:
    """One run of a stage as asked for: where its ports are, its parameters, and how to report back to Kubeflow."""

    stage: type[Stage]
    locations: dict[str, str]
    """Port -> path or uri; optional outputs may be absent."""
    parameters: dict[str, Any]
    overwrite: bool = False
    executor_output: Path | None = None
    """File for `executor_output.json`, when Kubeflow or the local executor started the stage."""
    uris: dict[str, str] = field(default_factory=dict)
    """Output port -> uri as Kubeflow knows it."""


def main(stage: type[Stage], argv: list[str]) -> int:
    """Run `stage` with the arguments of a command line; returns the exit code and prints no traceback by default."""
    debug = "--debug" in argv
    argv = [item for item in argv if item != "--debug"]
    set_up_logging(stage.slug())
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        execute(parse(stage, argv))
        return 0
    except KeyboardInterrupt:
        print(
            "interrupted: nothing half-written is left; the same command goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"error: {describe(error, stage)}", file=sys.stderr)
        return 1


def describe(error: Exception, stage: type[Stage]) -> str:
    """What a person needs to know of an error: the file or field, and what to do."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ValidationError) and error.title == stage.__name__:
        return "; ".join(_field_problem(item, stage) for item in error.errors())
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error.filename or 'output'}: the disk is full; make room and run the same command again"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"out of memory ({error}); a smaller batch or tile size needs less"
    return f"{type(error).__name__}: {error} (a fault of the program: --debug shows where)"


def _field_problem(item: Any, stage: type[Stage]) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"--{name}: {stage.slug()} has no such parameter; `--help` lists them"
    if item["type"] == "missing":
        return f"--{name}: required and not given"
    return f"--{name}: {item['msg']} (given: {item['input']!r})"


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


# --- what was asked for -------------------------------------------------------------------------------------------


def parse(stage: type[Stage], argv: list[str]) -> Task:
    """Command line -> task. Exits with 2 and a usage line on arguments that do not parse."""
    args = vars(_parser(stage).parse_args(argv))
    executor_input = args.pop("executor_input", None)
    if executor_input is not None:
        return from_executor_input(stage, executor_input)
    overwrite = args.pop("overwrite")
    ports = stage.ports()
    locations = {name: args.pop(name) for name in ports if args.get(name) is not None}
    needed = [name for name, port in ports.items() if port.is_artifact and name not in locations]
    if needed:
        raise UserError(f"--{needed[0]}: required and not given; `--help` describes it")
    fields = stage.parameters()
    return Task(stage, locations, {name: _from_text(fields[name], text) for name, text in args.items()}, overwrite)


def _parser(stage: type[Stage]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m components {stage.slug()}",
        description=stage.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    groups = {name: parser.add_argument_group(name) for name in ("inputs", "outputs", "parameters", "how to run")}
    for name, port in stage.ports().items():
        group = groups["inputs" if port.direction == "in" else "outputs"]
        text = (
            f"{stage.model_fields[name].description} [{port.kind.__name__}{'' if port.is_artifact else ', optional'}]"
        )
        group.add_argument(f"--{name}", metavar="PATH|s3://...", help=text.replace("%", "%%"))
    for name, info in stage.parameters().items():
        default = "required" if info.is_required() else f"default: {info.get_default(call_default_factory=True)!r}"
        text = f"{info.description} ({default})".replace("%", "%%")
        metavar = plain_type(info).__name__.upper()
        groups["parameters"].add_argument(f"--{name}", metavar=metavar, default=argparse.SUPPRESS, help=text)
    how = groups["how to run"]
    how.add_argument("--overwrite", action="store_true", help="replace a finished output instead of refusing")
    how.add_argument(
        "--executor-input", metavar="JSON", default=argparse.SUPPRESS, help="what Kubeflow hands a container"
    )
    how.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    return parser


def _from_text(info: Any, text: str) -> Any:
    if plain_type(info) not in (list, dict):
        return text  # pydantic converts, and says which field when it cannot
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [item.strip() for item in text.split(",")] if plain_type(info) is list else text


def from_executor_input(stage: type[Stage], text: str) -> Task:
    """Kubeflow's executor input (JSON text) -> task. Uris become the paths the launcher mounts them at."""
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--executor-input: not JSON ({error}); it is meant to be written by Kubeflow") from error
    inputs, outputs = given.get("inputs", {}), given.get("outputs", {})
    locations, uris = {}, {}
    for name, artifact in inputs.get("artifacts", {}).items():
        locations[name] = _mounted(artifact["artifacts"][0])
    for name, artifact in outputs.get("artifacts", {}).items():
        locations[name] = _mounted(artifact["artifacts"][0])
        uris[name] = artifact["artifacts"][0]["uri"]
    for name, parameter in outputs.get("parameters", {}).items():
        locations[name] = parameter["outputFile"]
    parameters = dict(inputs.get("parameterValues", {}))
    for name, info in stage.parameters().items():  # JSON numbers arrive as 3.0 where 3 was meant
        if plain_type(info) is int and isinstance(parameters.get(name), float) and parameters[name].is_integer():
            parameters[name] = int(parameters[name])
    output_file = outputs.get("outputFile")
    return Task(stage, locations, parameters, True, Path(output_file) if output_file else None, uris)


def _mounted(artifact: dict[str, Any]) -> str:
    """Local path of an artifact in a container: KFP's launcher mounts `s3://b/k` at `/s3/b/k`, and so on."""
    if path := artifact.get("customPath"):
        return path
    uri: str = artifact["uri"]
    for scheme, mount in (("s3://", "/s3/"), ("minio://", "/minio/"), ("gs://", "/gcs/")):
        if uri.startswith(scheme):
            return mount + uri.removeprefix(scheme)
    return uri


# --- doing it -----------------------------------------------------------------------------------------------------


def execute(task: Task) -> Result:
    """Check, fetch, compute, seal, deliver. On any failure the outputs are as they were before."""
    stage_type = task.stage
    code = code_version(stage_type.slug())
    ports = stage_type.ports()
    with tempfile.TemporaryDirectory(prefix="cytoloom-", dir=os.environ.get("CYTOLOOM_TMP")) as temporary:
        places = {name: _place(name, ports[name], task, Path(temporary)) for name in ports if name in task.locations}
        stage = stage_type.model_validate({**task.parameters, **places})  # before anything is fetched
        unknown = set(task.locations) - set(ports)
        if unknown:
            raise UserError(f"--{sorted(unknown)[0]}: {stage_type.slug()} has no such input or output")
        _refuse_finished(task, ports)
        manifests = {
            n: _bring(n, p.kind, task.locations[n], places[n]) for n, p in ports.items() if p.direction == "in"
        }
        inputs = {name: manifest.digest for name, manifest in manifests.items()}
        log.info("to run this again:\n  %s", rerun_command(stage, task.locations))
        keep = _checkpoints(task, task_key(stage_type.slug(), stage.parameter_values(), inputs, code))
        checkpoints.use(keep)
        partial = [
            place for name, place in places.items() if ports[name].direction == "out" and ports[name].is_artifact
        ]
        try:
            for place in partial:
                place.mkdir(parents=True)
            run: Run = importlib.import_module(f"components.{stage_type.slug()}.main").run
            result = run(stage)
            sealed = _seal_all(stage, task, places, inputs, result, code)
        except BaseException:
            for place in partial:
                shutil.rmtree(place, ignore_errors=True)
            raise
        _report_back(task, result, sealed)
        shutil.rmtree(keep, ignore_errors=True)
        return result


def _place(name: str, port: Port, task: Task, temporary: Path) -> Path:
    """Where the stage finds an input or writes an output while it runs."""
    location = task.locations[name]
    if port.direction == "in":
        return (
            temporary / "in" / name
            if "://" in location or not is_artifact(Path(location))
            else Path(location).absolute()
        )
    if not port.is_artifact:
        return Path(location)
    if "://" in location:
        return temporary / "out" / name
    target = Path(location).absolute()
    for stale in target.parent.glob(f".{target.name}.partial-*"):
        if not _alive(stale.name.rsplit("-", 1)[1]):
            shutil.rmtree(stale, ignore_errors=True)
    return target.parent / f".{target.name}.partial-{os.getpid()}"


def _alive(pid: str) -> bool:
    return pid.isdecimal() and int(pid) != os.getpid() and Path(f"/proc/{pid}").exists()


def _refuse_finished(task: Task, ports: dict[str, Port]) -> None:
    for name, port in ports.items():
        location = task.locations.get(name, "")
        if port.direction == "in" or not port.is_artifact or task.overwrite:
            continue
        if "://" in location:
            from shared import store

            finished = store.exists(f"{location.rstrip('/')}/artifact.json")
        else:
            path = Path(location)
            if path.is_dir() and any(path.iterdir()) and not is_artifact(path):
                raise UserError(f"--{name}: {path} is not empty and no artifact; give another path")
            if path.exists() and not path.is_dir():
                raise UserError(f"--{name}: {path} is a file; give a folder that does not exist yet")
            finished = is_artifact(path)
        if finished:
            raise UserError(f"--{name}: {location} holds a finished artifact; give another path, or --overwrite")


def _bring(name: str, kind: type, location: str, place: Path) -> Manifest:
    """Make an input artifact stand at `place`, checked: fetched, or ingested on the fly where it is plain images."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if "://" in location:
        from shared import store

        if kind is not ImageSet or store.exists(f"{location.rstrip('/')}/artifact.json"):
            store.fetch(location, place)
            return verify(place, kind)
    elif place == Path(location).absolute():
        return verify(place, kind)
    elif kind is not ImageSet or not Path(location).exists():
        read_manifest(Path(location), kind)  # says what is wrong
        raise ArtifactError(f"--{name}: {location}: not a {kind.__name__}")
    from shared.ingestion import ingest_plain

    log.info("--%s: %s holds plain images; ingesting them on the fly", name, location)
    ingest_plain(location, place)
    return seal(place, ImageSet, stage="ingest")


def _checkpoints(task: Task, key: str) -> Path:
    root = os.environ.get("CYTOLOOM_CHECKPOINTS")
    if not root:
        outputs = (
            task.locations[n] for n, p in task.stage.ports("out").items() if p.is_artifact and n in task.locations
        )
        local = next((Path(location).absolute().parent for location in outputs if "://" not in location), None)
        root = str(local / ".checkpoints" if local else Path.home() / ".cache/cytoloom/checkpoints")
    return Path(root) / key


def _seal_all(
    stage: Stage, task: Task, places: dict[str, Path], inputs: dict[str, str], result: Result, code: str
) -> dict[str, Manifest]:
    """Seal every output artifact, then move or send each to where it was asked for."""
    outputs = {name: port for name, port in stage.ports("out").items() if port.is_artifact}
    declared = {name for name, port in stage.ports("out").items() if port.is_value}
    if set(result.values) != declared:
        raise RuntimeError(
            f"run returned the output parameters {sorted(result.values)}, declared are {sorted(declared)}"
        )
    sealed = {
        name: seal(
            places[name],
            port.kind,
            stage=stage.slug(),
            parameters=stage.parameter_values(),
            code_version=code,
            inputs=inputs,
            skipped=result.skipped,
        )
        for name, port in outputs.items()
    }
    for name in outputs:
        _deliver(places[name], task.locations[name])
    return sealed


def _deliver(place: Path, location: str) -> None:
    if "://" in location:
        from shared import store

        store.send(place, location)
        return
    target = Path(location).absolute()
    if target.exists():
        shutil.rmtree(target)
    place.replace(target)


def _report_back(task: Task, result: Result, sealed: dict[str, Manifest]) -> None:
    """Write the page, the metrics, the output parameters, and what Kubeflow reads."""
    ports = task.stage.ports("out")
    for name, port in ports.items():
        location = task.locations.get(name)
        if location is None or port.is_artifact:
            continue
        if port.is_value:
            value = result.values[name]
            _write(location, value if isinstance(value, str) else json.dumps(value))
        elif name == "metrics":
            _write(location, json.dumps(result.metrics, sort_keys=True))
        else:
            _write(location, result.page.html() if result.page else f"<p>{task.stage.slug()}: nothing to show</p>")
    for name, manifest in sealed.items():
        log.info("%s: %s %s", name, manifest.digest[:16], task.locations[name])
    for name, number in result.metrics.items():
        log.info("%s = %.6g", name, number)
    if task.executor_output is None:
        return
    artifacts = {
        name: {"artifacts": [{"name": name, "uri": uri, "metadata": _metadata(name, result, sealed)}]}
        for name, uri in task.uris.items()
    }
    _write(str(task.executor_output), json.dumps({"parameterValues": result.values, "artifacts": artifacts}))


def _metadata(name: str, result: Result, sealed: dict[str, Manifest]) -> dict[str, Any]:
    if name == "metrics":
        return dict(result.metrics)
    if name in sealed:
        return {"digest": sealed[name].digest, "skipped": sealed[name].skipped or ""}
    return {}


def _write(location: str, text: str) -> None:
    """Write a small file as a whole, here or in the store."""
    if "://" in location:
        from shared import store

        store.put(location, text.encode())
        return
    path = Path(location)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
