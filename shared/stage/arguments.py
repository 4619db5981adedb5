"""Read from a command line which inputs, outputs and parameters a stage is given."""

import argparse
import inspect
import json
import re
import textwrap
from typing import Any, NoReturn

from pydantic.fields import FieldInfo

from shared.stage.declaration import Stage
from shared.stage.executor_input import from_executor_input
from shared.stage.invocation import Invocation
from shared.stage.wire import limits, parameter_type, plain_type
from shared.system.errors import UserError
from shared.system.suggestions import did_you_mean

_EPILOG = "A path may be an s3:// uri. An ImageSet may also be a plain folder, file or prefix of images."


def parse(stage: type[Stage], argv: list[str]) -> Invocation:
    """Parse a command line. Raises UserError that names the argument at fault; `--help` exits with 0."""
    known, unknown = _parser(stage).parse_known_args(argv)
    if unknown:
        flag = unknown[0].split("=", 1)[0]
        near = did_you_mean(flag, stage.model_fields)
        raise UserError(f"{flag}: {stage.slug()} has no such argument{near}; `--help` lists them")
    args = vars(known)
    executor_input = args.pop("executor_input", None)
    if executor_input is not None:
        return from_executor_input(stage, executor_input)
    overwrite = args.pop("overwrite")
    args.pop("debug", None)
    locations = {name: where for name in stage.ports() if (where := args.pop(name)) is not None}
    _check_given(stage, locations, args)
    fields = stage.parameters()
    parameters = {name: from_text(plain_type(fields[name]), text) for name, text in args.items()}
    return Invocation(stage, locations, parameters, overwrite)


def _check_given(stage: type[Stage], locations: dict[str, str], parameters: dict[str, str]) -> None:
    """Raise UserError where a path is empty or a required argument is missing."""
    if empty := [name for name, location in locations.items() if not location.strip()]:
        raise UserError(f"--{empty[0]}: the path is empty; give a path or an s3:// uri")
    needed = [name for name, port in stage.ports().items() if port.needed and name not in locations]
    needed += [name for name, info in stage.parameters().items() if info.is_required() and name not in parameters]
    if needed:
        flags = ", ".join(f"--{name}" for name in needed)
        raise UserError(f"{flags}: required and not given; `--help` describes {'it' if len(needed) == 1 else 'them'}")


def from_text(wire: type, text: str) -> Any:
    """Convert a parameter's text to a value that pydantic validates. wire: the field's `plain_type`.

    Lists are JSON or words separated by commas, dicts JSON. pydantic converts numbers itself, except those among the
    choices of a Literal.
    """
    if wire is int:
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else text
    if wire not in (list, dict):
        return text
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return [word.strip() for word in text.split(",")] if wire is list else text


# --- the parser ---------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Report an error in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument ").replace("expected one argument", "a value is missing"))


def _parser(stage: type[Stage]) -> argparse.ArgumentParser:
    parser = _Parser(
        usage=_usage(stage),
        description=inspect.cleandoc(stage.__doc__ or ""),
        epilog=_EPILOG,
        formatter_class=lambda prog: _HelpFormatter(prog, max_help_position=30, width=110),
        allow_abbrev=False,
    )
    groups = {name: parser.add_argument_group(name) for name in ("inputs", "outputs", "parameters", "how to run")}
    ports = stage.ports()
    for name in sorted(ports, key=lambda n: not ports[n].is_artifact):  # pages and metrics come last
        kind = ports[name].kind.__name__ + ("" if ports[name].needed else ", optional")
        group = groups["inputs" if ports[name].direction == "in" else "outputs"]
        group.add_argument(f"--{name}", metavar="PATH", help=_help(stage.model_fields[name].description, kind))
    for name, info in stage.parameters().items():
        _add_parameter(groups["parameters"], name, info)
    how = groups["how to run"]
    how.add_argument("--overwrite", action="store_true", help="replace a finished output instead of refusing it")
    how.add_argument(
        "--executor-input",
        metavar="JSON",
        default=argparse.SUPPRESS,
        help="JSON that Kubeflow passes in place of the arguments",
    )
    how.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Breaks lines between words only, so that `post-processing` can be searched for."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def _usage(stage: type[Stage]) -> str:
    needed = [f"--{name} PATH" for name, port in stage.ports().items() if port.needed]
    needed += [f"--{name} {_metavar(info)}" for name, info in stage.parameters().items() if info.is_required()]
    words = " ".join([f"python -m components {stage.slug()}", *needed, "[--field\xa0value\xa0...]"])
    text = textwrap.fill(words, width=100, subsequent_indent="         ", break_on_hyphens=False)
    return text.replace("\xa0", " ")


def _add_parameter(group: Any, name: str, info: FieldInfo) -> None:
    default = "required" if info.is_required() else f"default {_shown(info)}"
    bounds = limits(info)
    optional: dict[str, Any] = {"nargs": "?", "const": "true"} if plain_type(info) is bool else {}
    text = _help(info.description, f"{bounds}; {default}" if bounds else default)
    group.add_argument(f"--{name}", metavar=_metavar(info), default=argparse.SUPPRESS, help=text, **optional)


def _help(description: str | None, note: str) -> str:
    return f"{inspect.cleandoc(description or '')} [{note}]".replace("%", "%%")


def _shown(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    return "empty" if value == "" else json.dumps(value) if not isinstance(value, str) else value


def _metavar(info: FieldInfo) -> str:
    kind = parameter_type(info)
    numbers = {int: "INT", float: "FLOAT"}
    if kind.words:
        return "|".join([*kind.words, *([numbers[kind.number]] if kind.number else [])])
    return {str: "TEXT", bool: "true|false", **numbers}.get(kind.wire, "JSON")
