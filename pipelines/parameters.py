"""Read the run-time parameters of a graph: `--param NAME=VALUE`, `--source`, and the defaults."""

import contextlib
import json
from pathlib import Path
from typing import Any

from components.registry import declaration, names
from pipelines.ir.task_graph import Constant, Graph, Parameter, ParameterSpec
from pipelines.validation import external_parameters
from shared.readers.fingerprint import fingerprint
from shared.system.errors import UserError
from shared.system.suggestions import alternatives


def run_time_parameters(graph: Graph, texts: list[str], source: str | None) -> dict[str, Any]:
    """Return the value of every run-time parameter, and make relative paths in them and in `graph` absolute.

    texts: `NAME=VALUE`. The parameter `fingerprint` is computed from the source unless it is given. Raises UserError
    for an unknown name, a value of the wrong type and a required parameter without a value.
    """
    given = _given(graph, texts, source)
    for name, spec in graph.parameters.items():
        if spec.required and name not in given:
            flag = "--source DIR" if name == "source" else f"--param {name}=VALUE"
            raise UserError(f"{flag}: required, but not given")
    values = {name: given.get(name, spec.default) for name, spec in graph.parameters.items()}
    _make_paths_absolute(graph, values)
    if "source" in values and "fingerprint" in values and not values["fingerprint"]:
        try:
            values["fingerprint"] = fingerprint(values["source"])
        except UserError as error:
            raise UserError(f"--source: {error}") from error
    return values


def _given(graph: Graph, texts: list[str], source: str | None) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--param {text}: no value; write NAME=VALUE")
        if name not in graph.parameters:
            raise UserError(f"--param {name}: {graph.name} has no such parameter{alternatives(name, graph.parameters)}")
        given[name] = _parsed(name, graph.parameters[name], value)
    if source is not None:
        if "source" not in graph.parameters:
            raise UserError(f"--source: {graph.name} has no such parameter{alternatives('source', graph.parameters)}")
        given["source"] = source
    return given


def _parsed(name: str, spec: ParameterSpec, text: str) -> Any:
    """Parse a parameter's value from the command line."""
    parsers: dict[str, Any] = {"NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "LIST": json.loads, "STRUCT": json.loads}
    if spec.kind == "STRING":
        return text
    if spec.kind == "BOOLEAN" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    with contextlib.suppress(ValueError, KeyError, RecursionError):
        return parsers[spec.kind](text)
    raise UserError(f"--param {name}: {text[:100]!r} is not of the type {spec.kind.lower().replace('_', ' ')}")


def _make_paths_absolute(graph: Graph, values: dict[str, Any]) -> None:
    """Make absolute the paths that stages read by themselves: tasks run in another working directory."""
    for task in graph.tasks.values():
        if task.stage not in names():
            continue
        for field in external_parameters(declaration(task.stage)):
            source = task.parameters.get(field)
            if isinstance(source, Parameter) and values.get(source.name):
                values[source.name] = _absolute(values[source.name])
            elif isinstance(source, Constant) and source.value:
                task.parameters[field] = Constant(_absolute(source.value))


def _absolute(location: str) -> str:
    return location if "://" in location else str(Path(location).absolute())
