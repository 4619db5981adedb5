"""What a stage was asked to do: read from a command line by hand, or from the executor input Kubeflow writes."""

import argparse
import difflib
import inspect
import json
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from shared.stage.declaration import Stage, plain_type
from shared.system.errors import UserError


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
    names: dict[str, str] = field(default_factory=dict)
    """Output port -> the artifact's name as Kubeflow knows it."""


def suggestion(given: str, known: list[str]) -> str:
    """`; did you mean 'x'?` where a known name is close, else nothing."""
    close = difflib.get_close_matches(given.lstrip("-").replace("-", "_"), known, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def parse(stage: type[Stage], argv: list[str]) -> Task:
    """Command line -> task. Raises UserError that names the argument at fault; `--help` exits with 0."""
    known, unknown = _parser(stage).parse_known_args(argv)
    if unknown:
        flag = unknown[0].split("=", 1)[0]
        near = suggestion(flag, list(stage.model_fields))
        raise UserError(f"{flag}: {stage.slug()} has no such argument{near}; `--help` lists them")
    args = vars(known)
    executor_input = args.pop("executor_input", None)
    if executor_input is not None:
        return from_executor_input(stage, executor_input)
    overwrite = args.pop("overwrite")
    args.pop("debug", None)
    ports = stage.ports()
    locations = {name: where for name in ports if (where := args.pop(name)) is not None}
    if empty := [name for name, location in locations.items() if not location.strip()]:
        raise UserError(f"--{empty[0]}: an empty path")
    needed = [name for name, port in ports.items() if port.needed and name not in locations]
    fields = stage.parameters()
    needed += [name for name, info in fields.items() if info.is_required() and name not in args]
    if needed:
        each = ", ".join(f"--{name}" for name in needed)
        raise UserError(f"{each}: required and not given; `--help` describes {'it' if len(needed) == 1 else 'them'}")
    parameters = {name: from_text(plain_type(fields[name]), text) for name, text in args.items()}
    return Task(stage, locations, parameters, overwrite)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error is said."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument ").replace("expected one argument", "a value is missing"))


def _parser(stage: type[Stage]) -> argparse.ArgumentParser:
    needed = [f"--{n} PATH" for n, port in stage.ports().items() if port.needed]
    needed += [f"--{n} {_metavar(info)}" for n, info in stage.parameters().items() if info.is_required()]
    usage = textwrap.fill(
        " ".join([f"python -m components {stage.slug()}", *needed, "[--field\xa0value\xa0...]"]),
        width=100,
        subsequent_indent="         ",
        break_on_hyphens=False,
    ).replace("\xa0", " ")
    parser = _Parser(
        usage=usage,
        description=inspect.cleandoc(stage.__doc__ or ""),
        epilog="A path may be an s3:// uri. For ImageSet a plain folder, file or prefix of images will do as well.",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=110),
        allow_abbrev=False,
    )
    groups = {name: parser.add_argument_group(name) for name in ("inputs", "outputs", "parameters", "how to run")}
    ports = stage.ports()
    for name in sorted(ports, key=lambda n: not ports[n].is_artifact):  # report, metrics and the like come last
        kind = ports[name].kind.__name__ + ("" if ports[name].needed else ", optional")
        group = groups["inputs" if ports[name].direction == "in" else "outputs"]
        group.add_argument(f"--{name}", metavar="PATH", help=_help(stage.model_fields[name].description, kind))
    for name, info in stage.parameters().items():
        default = "required" if info.is_required() else f"default {_shown(info)}"
        bounds = limits(info)
        optional: dict[str, Any] = {"nargs": "?", "const": "true"} if plain_type(info) is bool else {}
        groups["parameters"].add_argument(
            f"--{name}",
            metavar=_metavar(info),
            default=argparse.SUPPRESS,
            help=_help(info.description, f"{bounds}; {default}" if bounds else default),
            **optional,
        )
    how = groups["how to run"]
    how.add_argument("--overwrite", action="store_true", help="replace a finished output instead of refusing")
    how.add_argument("--executor-input", metavar="JSON", default=argparse.SUPPRESS, help="what Kubeflow gives instead")
    how.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _help(description: str | None, note: str) -> str:
    return f"{inspect.cleandoc(description or '')} [{note}]".replace("%", "%%")


def _shown(info: Any) -> str:
    value = info.get_default(call_default_factory=True)
    return "empty" if value == "" else json.dumps(value) if not isinstance(value, str) else value


def _metavar(info: Any) -> str:
    if get_origin(info.annotation) is Literal:
        return "|".join(str(choice) for choice in get_args(info.annotation))
    return {str: "TEXT", bool: "true|false", int: "INT", float: "FLOAT"}.get(plain_type(info), "JSON")


def limits(info: Any) -> str:
    """`>= 2, <= 250`, of a number with bounds; `multiple of 16` and the like."""
    signs = {"ge": ">= {:g}", "gt": "> {:g}", "le": "<= {:g}", "lt": "< {:g}", "multiple_of": "multiple of {:g}"}
    found = {name: getattr(item, name) for item in info.metadata for name in signs if hasattr(item, name)}
    return ", ".join(signs[name].format(value) for name, value in found.items() if value is not None)


def from_text(wire: type, text: str) -> Any:
    """A parameter's value given as text -> what pydantic can check; `wire` is the field's `plain_type`.

    Lists are JSON or words between commas, dicts JSON. pydantic reads numbers by itself, but not among the choices
    of a Literal.
    """
    if wire is int:
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else text
    if wire not in (list, dict):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [word.strip() for word in text.split(",")] if wire is list else text


def from_executor_input(stage: type[Stage], text: str) -> Task:
    """Kubeflow's executor input (JSON text) -> task. Uris become the paths the launcher mounts them at."""
    try:
        given = json.loads(text)
        inputs, outputs = given.get("inputs", {}), given.get("outputs", {})
        brought = {name: item["artifacts"][0] for name, item in inputs.get("artifacts", {}).items()}
        made = {name: item["artifacts"][0] for name, item in outputs.get("artifacts", {}).items()}
        locations = {name: _mounted(artifact) for name, artifact in {**brought, **made}.items()}
        locations |= {name: item["outputFile"] for name, item in outputs.get("parameters", {}).items()}
        parameters = dict(inputs.get("parameterValues", {}))
    except (ValueError, AttributeError, KeyError, IndexError, TypeError) as error:
        raise UserError(
            f"--executor-input: not what Kubeflow writes ({type(error).__name__}: {error}); "
            "by hand, give the inputs and outputs as arguments"
        ) from error
    for name, info in stage.parameters().items():  # JSON numbers arrive as 3.0 where 3 was meant
        if plain_type(info) is int and isinstance(parameters.get(name), float) and parameters[name].is_integer():
            parameters[name] = int(parameters[name])
    output_file = outputs.get("outputFile")
    return Task(
        stage,
        locations,
        parameters,
        overwrite=True,
        executor_output=Path(output_file) if output_file else None,
        uris={name: artifact["uri"] for name, artifact in made.items()},
        names={name: artifact.get("name", name) for name, artifact in made.items()},
    )


def _mounted(artifact: dict[str, Any]) -> str:
    """Local path of an artifact in a container: KFP's launcher mounts `s3://b/k` at `/s3/b/k`, and so on."""
    if path := artifact.get("customPath"):
        return path
    uri: str = artifact["uri"]
    for scheme, mount in (("s3://", "/s3/"), ("minio://", "/minio/"), ("gs://", "/gcs/")):
        if uri.startswith(scheme):
            return mount + uri.removeprefix(scheme)
    return uri
