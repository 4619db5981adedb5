"""A compiled pipeline as the local executor sees it: container tasks, and where each of their inputs comes from."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Constant:
    """A value fixed when the graph was compiled."""

    value: Any


@dataclass(frozen=True)
class Parameter:
    """A run-time parameter of the pipeline."""

    name: str


@dataclass(frozen=True)
class Output:
    """An output of another task: an artifact, or the value of an output parameter."""

    task: str
    key: str


@dataclass(frozen=True)
class Text:
    """A text with values put into it, from an f-string in the pipeline's code."""

    template: str
    values: dict[str, "Source"]


Source = Constant | Parameter | Output | Text


@dataclass(frozen=True)
class Condition:
    """The task runs only where `source` equals (or does not equal) `value`."""

    source: Source
    equal: bool
    value: Any


@dataclass(frozen=True)
class ParameterSpec:
    """A run-time parameter: `kind` is Kubeflow's, such as NUMBER_INTEGER."""

    kind: str
    required: bool
    default: Any = None


@dataclass
class Task:
    """One container, or an importer (then `image` is empty and `import_uri` says what it brings)."""

    name: str
    image: str = ""
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    gpu: bool = False
    retries: int = 0
    import_uri: Source | None = None
    parameters: dict[str, Source] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    """Input parameter -> Kubeflow's type of it."""
    artifacts: dict[str, Source] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    """Output artifact -> its type, such as {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}."""
    values: dict[str, str] = field(default_factory=dict)
    """Output parameter -> Kubeflow's type of it."""
    after: set[str] = field(default_factory=set)
    """Tasks that must have ended, be it for their outputs or because the graph says so."""
    conditions: list[Condition] = field(default_factory=list)

    @property
    def stage(self) -> str:
        """Slug of the stage it runs; empty for a component that is none."""
        return self.command[3] if self.command[:3] == ["python", "-m", "components"] else ""


@dataclass
class Graph:
    """Tasks in an order in which each comes after those it waits for."""

    name: str
    parameters: dict[str, ParameterSpec]
    tasks: dict[str, Task]

    def downstream(self, name: str) -> set[str]:
        """`name` and every task that waits for it, directly or not."""
        found = {name}
        for task in self.tasks.values():
            if task.after & found:
                found.add(task.name)
        return found


def leads(source: Source | None) -> list[Output]:
    """The outputs of tasks that a source draws on."""
    if isinstance(source, Text):
        return [output for value in source.values.values() for output in leads(value)]
    return [source] if isinstance(source, Output) else []
