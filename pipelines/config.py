"""What `--config run.yaml` and `--set STAGE.FIELD=VALUE` fix when a graph is compiled, checked against the stages.

rounds: 4
pretrain: {steps: 500, size: small}
cluster: {k: 16}
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from components.registry import declaration, names
from shared.stage.arguments import from_text
from shared.stage.declaration import Stage
from shared.stage.wire import plain_type, to_wire
from shared.system.errors import UserError
from shared.system.suggestions import alternatives

if TYPE_CHECKING:
    from pipelines.kubeflow.resources import Profile

ROUNDS = range(1, 51)


class Config:
    """Settings of a graph: `rounds`, and constants of its stages. A graph takes from it what it wires itself."""

    def __init__(
        self, rounds: int = 4, stages: dict[str, dict[str, Any]] | None = None, profile: "Profile | None" = None
    ) -> None:
        self.rounds = rounds
        self.stages = stages or {}
        self.profile = profile
        """What the cluster it is compiled for has; None: nothing in particular."""
        self._offered: set[tuple[str, str]] = set()
        self._used: set[str] = set()

    def default(self, stage: type[Stage], field: str) -> Any:
        """Value of `field` as set, else its default: for a run-time parameter of the graph that feeds this field."""
        self._offered.add((stage.slug(), field))
        info = stage.parameters()[field]
        own = info.get_default(call_default_factory=True)
        return to_wire(info, self.stages.get(stage.slug(), {}).get(field, own))

    def constants(self, stage: type[Stage], wired: Iterable[str]) -> dict[str, Any]:
        """What is set for `stage`, without the fields that the graph wires. Raises UserError where both claim one."""
        slug = stage.slug()
        self._used.add(slug)
        given = dict(self.stages.get(slug, {}))
        for name in set(wired) & set(given):
            if (slug, name) not in self._offered:
                raise UserError(f"{slug}.{name}: the graph itself decides it; `--param` sets run-time parameters")
            del given[name]
        return {name: to_wire(stage.parameters()[name], value) for name, value in given.items()}

    def refuse_unused(self, graph: str) -> None:
        """Raise UserError for settings of stages that the graph, now built, does not have."""
        for slug in sorted(set(self.stages) - self._used):
            raise UserError(f"{slug}: {graph} has no such stage; it has {', '.join(sorted(self._used))}")


def load(path: Path | None = None, settings: Iterable[str] = (), profile: "Profile | None" = None) -> Config:
    """Read a config file and `STAGE.FIELD=VALUE` settings, which win over it. Raises UserError on the first fault."""
    given = _read(path) if path else {}
    for text in settings:
        target, equals, value = text.partition("=")
        stage, dot, field = target.partition(".")
        if not equals:
            raise UserError(f"--set {text}: write STAGE.FIELD=VALUE, such as pretrain.steps=500, or rounds=3")
        if dot:
            section = given.setdefault(stage, {})
            if not isinstance(section, dict):
                raise UserError(f"{stage}: a mapping of fields to values is expected")
            given[stage] = {**section, field: value}
        else:
            given[stage] = value
    rounds = _rounds(given.pop("rounds", 4))
    return Config(rounds, {stage: _section(stage, fields) for stage, fields in given.items()}, profile)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content or {}, dict):
        raise UserError(f"{path}: a mapping is expected: `{{stage: {{field: value}}, rounds: 3}}`")
    return dict(content or {})


def _rounds(value: Any) -> int:
    if isinstance(value, bool) or not str(value).isdecimal() or int(value) not in ROUNDS:
        raise UserError(f"rounds: a whole number from {ROUNDS[0]} to {ROUNDS[-1]} is expected (given: {value!r})")
    return int(value)


def _section(slug: str, fields: Any) -> dict[str, Any]:
    """Check what is set for one stage; returns the values as JSON knows them."""
    if slug not in names():
        raise UserError(f"{slug}: no such stage{alternatives(slug, [*names(), 'rounds'])}")
    stage = declaration(slug)
    if not isinstance(fields, dict):
        raise UserError(f"{slug}: a mapping of fields to values is expected (given: {fields!r})")
    values = {}
    for name, value in fields.items():
        if name not in stage.parameters():
            raise UserError(f"{slug}.{name}: {unknown_parameter(stage, str(name))}")
        values[name] = from_text(plain_type(stage.parameters()[name]), value) if isinstance(value, str) else value
    return check(stage, values, slug, later=set(stage.parameters()) - set(values))


def check(stage: type[Stage], values: dict[str, Any], where: str, later: Iterable[str] = ()) -> dict[str, Any]:
    """Check parameter values against the declaration before anything runs; returns them as JSON knows them.

    where: put before a field's name in the message; later: parameters whose values are not known yet.
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


def _problem(item: Any, stage: type[Stage], where: str) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{where}.{name}: {unknown_parameter(stage, name)}"
    if item["type"] == "missing":
        return f"{where}.{name}: required and not given"
    return f"{where}.{name}: {item['msg']} (given: {item['input']!r})"


def unknown_parameter(stage: type[Stage], name: str) -> str:
    """Why `name` cannot be set, with the closest name that can."""
    if name in stage.ports():
        return "an input or output, which the graph wires; parameters can be set"
    return f"{stage.slug()} has no such parameter{alternatives(name, stage.parameters())}"
