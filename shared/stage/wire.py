"""Map the type of a parameter to the one of Kubeflow's six types that carries its value.

The same holds for command lines, executor inputs and configs. A number that also takes a word,
`PositiveInt | Literal["auto"]`, travels as text: "auto" or "12". pydantic converts the text and validates the value.
"""

import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

_SIGNS = {"ge": ">= {:g}", "gt": "> {:g}", "le": "<= {:g}", "lt": "< {:g}", "multiple_of": "multiple of {:g}"}


@dataclass(frozen=True)
class ParameterType:
    """The parts of a parameter's type."""

    wire: type
    """Type that carries the values: str, int, float, bool, list or dict."""
    words: tuple[str, ...]
    """Words that the parameter accepts: the choices of a Literal, or words beside a number, such as `auto`."""
    number: type | None
    """int or float where the parameter accepts a word or a number; else None."""
    metadata: tuple[Any, ...]
    """Bounds and other annotations."""


def parameter_type(field: FieldInfo) -> ParameterType:
    """Take apart the type of a field that is a parameter. Raises TypeError for a type that cannot travel."""
    kind, metadata = _bare(field.annotation)
    metadata = (*field.metadata, *metadata)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return ParameterType(type(choices[0]), tuple(str(choice) for choice in choices), None, metadata)
    if get_origin(kind) in (Union, types.UnionType):
        return _union(kind, metadata)
    return ParameterType(_plain(kind), (), None, metadata)


def plain_type(field: FieldInfo) -> type:
    """Return which of str, int, float, bool, list, dict carries the field's values."""
    return parameter_type(field).wire


def to_wire(field: FieldInfo, value: Any) -> Any:
    """Convert a JSON value to its wire type: the number of a parameter that also accepts a word becomes text."""
    return str(value) if parameter_type(field).number and not isinstance(value, str) else value


def limits(field: FieldInfo) -> str:
    """Return the bounds of a number as text: `>= 2, <= 250`, or `multiple of 16`; empty where it has none."""
    metadata = parameter_type(field).metadata
    found = {name: getattr(item, name) for item in _flat(metadata) for name in _SIGNS if hasattr(item, name)}
    return ", ".join(_SIGNS[name].format(value) for name, value in found.items() if value is not None)


def number_or_word(field: FieldInfo) -> str:
    """Describe the values of a parameter that takes a number or a word: `a number >= 2, or 'auto'`; else empty."""
    kind = parameter_type(field)
    if not kind.number:
        return ""
    number = " ".join(filter(None, ["a whole number" if kind.number is int else "a number", limits(field)]))
    return ", or ".join([number, *map(repr, kind.words)])


def _union(kind: Any, metadata: tuple[Any, ...]) -> ParameterType:
    words: tuple[str, ...] = ()
    numbers: list[type] = []
    for arm in get_args(kind):
        bare, more = _bare(arm)
        metadata = (*metadata, *more)
        if get_origin(bare) is Literal:
            words += tuple(str(word) for word in get_args(bare))
        else:
            numbers.append(_plain(bare))
    if words and not numbers:
        return ParameterType(str, words, None, metadata)
    if not words or len(numbers) != 1 or numbers[0] not in (int, float):
        raise TypeError(f"{kind}: a parameter has one type, or is a number or a word: `int | Literal['auto']`")
    return ParameterType(str, words, numbers[0], metadata)


def _bare(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split a type from its annotations."""
    metadata: tuple[Any, ...] = ()
    while get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        metadata = (*metadata, *more)
    return kind, metadata


def _plain(kind: Any) -> type:
    kind = get_origin(kind) or kind
    for wire in (bool, int, float, str, list, dict):
        if kind is wire or (isinstance(kind, type) and issubclass(kind, tuple if wire is list else wire)):
            return wire
    raise TypeError(f"{kind}: not a type a parameter can have")


def _flat(metadata: tuple[Any, ...]) -> list[Any]:
    """Return the annotations, including those inside a pydantic Field."""
    return [inner for item in metadata for inner in (item.metadata if isinstance(item, FieldInfo) else [item])]
