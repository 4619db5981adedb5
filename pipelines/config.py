"""Settings fixed when a graph is compiled: `--config run.yaml` and `--set KEY.FIELD=VALUE`, checked against the stages.

    rounds: 4
    pretrain: {steps: 500, size: small}       # a stage: every task that runs it
    em/evaluate: {max_images: 5}              # a task: in every round of the loop
    em-1/cluster: {k: 16}                     # in round 1 alone
    evaluate-predictions: {foreground_threshold: 0.4}

A key with a slash or a dash names a task, any other key a stage. The more specific key wins.
"""

import copy
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from components.registry import declaration, names
from pipelines.ir.yaml_file import read_yaml
from pipelines.validation import check, check_settings
from shared.stage.declaration import Stage
from shared.stage.wire import to_wire
from shared.system.errors import UserError
from shared.system.suggestions import alternatives, did_you_mean

MAX_ROUNDS = 50


class Config:
    """The settings of one graph. The graph reads them while it is built; `refuse_unused` then reports the others."""

    def __init__(
        self,
        rounds: int = 4,
        stages: dict[str, dict[str, Any]] | None = None,
        tasks: dict[str, Any] | None = None,
        profile: Any = None,
    ) -> None:
        """stages: name -> checked settings; tasks: name -> settings, which are checked once the stage is known."""
        self.rounds = rounds
        self.stages = stages or {}
        self.tasks = tasks or {}
        self.profile = profile
        """`kubeflow.resources.Profile` of the cluster that the graph is compiled for; None: the default resources."""
        self._prefixes: Sequence[str] = ("",)
        """Prefixes of the task keys that hold here, the most specific one last."""
        self._members: Sequence[str] = ("",)
        """Prefixes of the tasks that are built from here."""
        self._run_time: set[tuple[str, str]] = set()
        """(stage, field) that a run-time parameter of the graph feeds."""
        self._defaults: set[tuple[str, str]] = set()
        """(task key, field) whose setting is the default of a run-time parameter."""
        self._used_stages: set[str] = set()
        self._used_tasks: dict[str, None] = {}
        self._listed_tasks: dict[str, None] = {}
        """Of the used tasks, those of a whole group once: `em/cluster`, without `em-0/cluster` and so on."""

    def default(self, stage: type[Stage], field: str, group: str = "", otherwise: Any = None) -> Any:
        """Return the default of a run-time parameter that feeds `field`: the value set, else `otherwise`.

        group: repeated subgraph that holds the stage's tasks, such as `em`. otherwise: None stands for the stage's own
        default.
        """
        self._run_time.add((stage.slug(), field))
        info = stage.parameters()[field]
        own_default = info.get_default(call_default_factory=True) if otherwise is None else otherwise
        value = self.stages.get(stage.slug(), {}).get(field, own_default)
        key = f"{group}/{_task_name(stage)}" if group else _task_name(stage)
        if field in (own := self._task_settings(key, stage)):
            self._defaults.add((key, field))
            value = own[field]
        return to_wire(info, value)

    def groups(self, name: str, members: Sequence[str]) -> list["Config"]:
        """Return the config of each member of a repeated subgraph: of `em-0`, `em-1`, ... in the group `em`.

        Settings of `em/TASK` hold in all of them. Members without settings of their own share one config object.
        """
        own = [member for member in members if any(key.startswith(f"{member}/") for key in self.tasks)]
        shared = self._scoped([name], [member for member in members if member not in own])
        return [self._scoped([name, member], [member]) if member in own else shared for member in members]

    def constants(self, stage: type[Stage], wired: Collection[str], name: str = "") -> dict[str, Any]:
        """Return the settings of the task `name` of a stage (empty: named as the stage), in their wire form.

        wired: fields that the graph connects. A setting of such a field is refused, unless a run-time parameter feeds
        it: then the stage's setting is the parameter's default, and a more specific one replaces the parameter.
        """
        slug, task = stage.slug(), name or _task_name(stage)
        self._used_stages.add(slug)
        self._used_tasks.update(dict.fromkeys(f"{prefix}{task}" for prefix in (*self._prefixes, *self._members)))
        keys = [f"{prefix}{task}" for prefix in self._prefixes]
        self._listed_tasks[keys[0]] = None
        sections = [(slug, self.stages.get(slug, {})), *((key, self._task_settings(key, stage)) for key in keys)]
        values = {}
        for key, section in sections:
            for field, value in section.items():
                if field in wired and (slug, field) not in self._run_time:
                    raise UserError(f"{key}.{field}: the graph itself sets it; `--param` sets run-time parameters")
                if field not in wired or (key != slug and (key, field) not in self._defaults):
                    values[field] = value
        check(stage, values, task, later=set(stage.parameters()) - set(values))
        return {field: to_wire(stage.parameters()[field], value) for field, value in values.items()}

    def refuse_unused(self, graph: str) -> None:
        """Raise UserError for settings of stages or tasks that the graph, now built, does not have."""
        for slug in sorted(set(self.stages) - self._used_stages):
            raise UserError(f"{slug}: {graph} has no such stage; it has {', '.join(sorted(self._used_stages))}")
        for key in sorted(set(self.tasks) - set(self._used_tasks)):
            closest = did_you_mean(key, [*self._used_tasks, *self._used_stages])
            listed = ", ".join(sorted(self._listed_tasks, key=lambda task: "/" in task))
            raise UserError(f"{key}: {graph} has no such task{closest}; its tasks are {listed}")

    def _scoped(self, groups: Sequence[str], members: Sequence[str]) -> "Config":
        scoped = copy.copy(self)  # what is used and fed by parameters is recorded in one place for all
        scoped._prefixes = [f"{group}/" for group in groups]
        scoped._members = [f"{member}/" for member in members]
        return scoped

    def _task_settings(self, key: str, stage: type[Stage]) -> dict[str, Any]:
        return check_settings(stage, self.tasks[key], key) if key in self.tasks else {}


def load_config(path: Path | None = None, settings: Iterable[str] = (), profile: Any = None) -> Config:
    """Read a config file and `KEY.FIELD=VALUE` settings, which win over it. Raises UserError for the first error."""
    given = _read(path) if path else {}
    for text in settings:
        key, field, value = _split(text)
        if not field:
            given[key] = value
            continue
        section = given.setdefault(key, {})
        if not isinstance(section, dict):
            raise UserError(f"{key}: a mapping of fields to values is expected (given: {section!r})")
        given[key] = {**section, field: value}
    rounds = _rounds(given.pop("rounds", 4))
    tasks = {key: section for key, section in given.items() if "/" in key or "-" in key}
    stages = {key: _stage_settings(key, section) for key, section in given.items() if key not in tasks}
    return Config(rounds, stages, tasks, profile)


def _task_name(stage: type[Stage]) -> str:
    return stage.slug().replace("_", "-")


def _split(text: str) -> tuple[str, str, str]:
    """`em/cluster.k=16` -> ("em/cluster", "k", "16"); `rounds=3` -> ("rounds", "", "3")."""
    target, equals, value = text.partition("=")
    key, _, field = target.partition(".")
    if not equals:
        raise UserError(f"--set {text}: no value; write STAGE.FIELD=VALUE, such as pretrain.steps=500, or rounds=3")
    return key, field, value


def _read(path: Path) -> dict[str, Any]:
    documents = read_yaml(path, f"--config: {path}")
    content = documents[0] if documents else {}
    if not isinstance(content or {}, dict):
        raise UserError(f"--config: {path}: not a mapping; write `{{stage: {{field: value}}, rounds: 3}}`")
    return {str(key): section for key, section in (content or {}).items()}


def _rounds(value: Any) -> int:
    if isinstance(value, bool) or not str(value).isdecimal() or not 1 <= int(value) <= MAX_ROUNDS:
        raise UserError(f"rounds: a whole number from 1 to {MAX_ROUNDS} is expected (given: {value!r})")
    return int(value)


def _stage_settings(slug: str, section: Any) -> dict[str, Any]:
    if slug not in names():
        raise UserError(f"{slug}: no such stage{alternatives(slug, [*names(), 'rounds'])}")
    return check_settings(declaration(slug), section, slug)
