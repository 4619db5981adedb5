"""Describe a compiled pipeline as a flat graph: container tasks, and the source of each of their inputs."""

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
class TaskOutput:
    """An output of another task: an artifact, or the value of an output parameter."""

    task: str
    key: str


@dataclass(frozen=True)
class Text:
    """A text with placeholders, from an f-string in the pipeline's code."""

    template: str
    values: dict[str, "Source"]
    """Placeholder -> source of the value that replaces it."""


Source = Constant | Parameter | TaskOutput | Text


@dataclass(frozen=True)
class Condition:
    """The task runs only if `source` equals (or does not equal) `value`."""

    source: Source
    equal: bool
    value: Any


@dataclass(frozen=True)
class ParameterSpec:
    """The declaration of a run-time parameter."""

    kind: str
    """Kubeflow's name of the type, such as NUMBER_INTEGER."""
    required: bool
    default: Any = None


@dataclass
class Task:
    """One container, or an importer: then `image` is empty and `import_uri` is the location to import."""

    name: str
    image: str = ""
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    gpu: bool = False
    retries: int = 0
    import_uri: Source | None = None
    parameters: dict[str, Source] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    """Input parameter -> Kubeflow's name of its type."""
    artifacts: dict[str, Source] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    """Output artifact -> its type, such as {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}."""
    values: dict[str, str] = field(default_factory=dict)
    """Output parameter -> Kubeflow's name of its type."""
    after: set[str] = field(default_factory=set)
    """Tasks that must end first: this task reads their outputs, or the graph orders them explicitly."""
    conditions: list[Condition] = field(default_factory=list)

    @property
    def stage(self) -> str:
        """Name of the stage that the task runs; empty for a component that is not a stage."""
        return self.command[3] if self.command[:3] == ["python", "-m", "components"] else ""


@dataclass
class Graph:
    """A pipeline. Each task comes after the tasks it waits for."""

    name: str
    parameters: dict[str, ParameterSpec]
    tasks: dict[str, Task]

    def downstream(self, name: str) -> set[str]:
        """The task `name` and every task that waits for it, directly or not."""
        found = {name}
        for task in self.tasks.values():
            if task.after & found:
                found.add(task.name)
        return found


def task_outputs(source: Source | None) -> list[TaskOutput]:
    """The outputs of other tasks that a source reads."""
    if isinstance(source, Text):
        return [output for value in source.values.values() for output in task_outputs(value)]
    return [source] if isinstance(source, TaskOutput) else []
