"""Check parameter values against the declaration of their stage, before anything runs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.stage.arguments import from_text
from shared.stage.declaration import Stage, is_external
from shared.stage.wire import number_or_word, plain_type
from shared.system.errors import UserError
from shared.system.suggestions import alternatives


def check(stage: type[Stage], values: dict[str, Any], where: str, later: Iterable[str] = ()) -> dict[str, Any]:
    """Validate parameter values and return them as JSON values, defaults included. Raises UserError.

    where: precedes the field's name in the message, such as `em-0/cluster`; later: parameters without a value yet.
    """
    ports = {name: Path("/") for name, port in stage.ports().items() if port.is_artifact}
    later = set(later)
    try:
        checked = stage.model_validate({**values, **ports}).parameter_values()
    except ValidationError as error:
        problems = [item for item in error.errors() if not (item["type"] == "missing" and item["loc"][0] in later)]
        if problems:
            raise UserError(_problem(problems[0], stage, where)) from error
        return values
    return {name: value for name, value in checked.items() if name in values or name not in later}


def check_settings(stage: type[Stage], settings: Any, where: str) -> dict[str, Any]:
    """Validate a section of a config file and return JSON values. Text may stand for any value. Raises UserError."""
    if not isinstance(settings, dict):
        raise UserError(f"{where}: a mapping of fields to values is expected (given: {settings!r})")
    values = {}
    for name, value in settings.items():
        if name not in stage.parameters():
            raise UserError(f"{where}.{name}: {_unknown_parameter(stage, str(name))}")
        values[name] = from_text(plain_type(stage.parameters()[name]), value) if isinstance(value, str) else value
    return check(stage, values, where, later=set(stage.parameters()) - set(values))


def external_parameters(stage: type[Stage]) -> list[str]:
    """Names of the parameters that are paths or URIs which the stage itself reads."""
    return [name for name, info in stage.parameters().items() if is_external(info)]


def _problem(item: Any, stage: type[Stage], where: str) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{where}.{name}: {_unknown_parameter(stage, name)}"
    if item["type"] == "missing":
        return f"{where}.{name}: required, but not given"
    field = stage.parameters().get(str(item["loc"][0]))
    if field is not None and (words := number_or_word(field)):
        return f"{where}.{item['loc'][0]}: Input should be {words} (given: {item['input']!r})"
    return f"{where}.{name}: {item['msg']} (given: {item['input']!r})"


def _unknown_parameter(stage: type[Stage], name: str) -> str:
    """Why `name` cannot be set, with the closest name that can."""
    if name in stage.ports():
        return "an input or output, which the graph connects; only parameters can be set"
    return f"{stage.slug()} has no such parameter{alternatives(name, stage.parameters())}"
