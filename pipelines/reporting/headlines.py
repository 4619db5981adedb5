"""Collect the metrics that reports show: those that stages declare as `Stage.headlines` and `Stage.curves`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from components.registry import declaration, names
from pipelines.reporting.repetitions import Loop, loops, outside
from pipelines.run_folder.record import RunRecord, TaskRecord
from shared.reporting.plots import Points
from shared.stage.declaration import Stage


@dataclass(frozen=True)
class Headline:
    """The value of a headline metric of one task."""

    task: str
    label: str
    """What reports call the metric."""
    value: float
    remark: str
    """Of the task."""


@dataclass(frozen=True)
class Column:
    """A headline metric over the repetitions of a loop."""

    task: str
    """Name inside the repetition."""
    metric: str
    label: str
    values: list[float | None]
    """One for each repetition; None where it was not computed."""


def stage_of(task: TaskRecord) -> type[Stage] | None:
    """The declaration of the task's stage; None for what is not a stage of this version."""
    return declaration(task.stage) if task.stage in _stages() else None


@cache
def _stages() -> frozenset[str]:
    return frozenset(names())


def headlines(record: RunRecord) -> list[Headline]:
    """Headline metrics of the tasks that are in no repetition, those of later tasks first."""
    return [
        Headline(name, label, value, task.remark)
        for name, task in reversed(outside(record).items())
        for metric, label in named_headlines(task).items()
        if (value := metric_of(task, metric)) is not None
    ]


def named_headlines(task: TaskRecord) -> dict[str, str]:
    """Metric -> label of the headlines that the task's stage declares."""
    return _named(task, "headlines")


def columns(loop: Loop) -> list[Column]:
    """Headline metrics over the repetitions of a loop, those of later tasks first."""
    return [column for name in reversed(loop.task_names()) for column in _series(loop, name, "headlines")]


def curves(loop: Loop) -> list[Column]:
    """Metrics that are plotted over the repetitions of a loop, in the order of the graph."""
    return [column for name in loop.task_names() for column in _series(loop, name, "curves")]


def _series(loop: Loop, name: str, kind: str) -> list[Column]:
    """Leaves out metrics that no repetition has: a stage declares those of every kind of model that it knows."""
    tasks = [repetition.tasks.get(name, TaskRecord()) for repetition in loop.repetitions]
    labels = {metric: label for task in tasks for metric, label in _named(task, kind).items()}
    found = [Column(name, metric, label, [metric_of(t, metric) for t in tasks]) for metric, label in labels.items()]
    return [column for column in found if any(value is not None for value in column.values)]


def _named(task: TaskRecord, kind: str) -> dict[str, str]:
    stage = stage_of(task)
    return getattr(stage, kind) if stage else {}


def metric_of(task: TaskRecord, metric: str) -> float | None:
    """A metric's value; None where the task did not compute it."""
    return None if task.skipped else task.metrics.get(metric)


def points(values: Sequence[float | None]) -> Points:
    """(number of the repetition, value) of those that are known."""
    return [(i, value) for i, value in enumerate(values) if value is not None]


def remarks(record: RunRecord) -> list[tuple[str, str]]:
    """(task, remark) of the last repetition that was computed, and of the tasks that are in no repetition.

    Tasks in no repetition also tell why they were skipped.
    """
    alone = outside(record)
    told = set(alone)
    for loop in loops(record):
        if last := loop.last_computed():
            told |= {f"{last.name}/{name}" for name in last.tasks}
    skipped = {name: f"skipped: {task.skipped}" for name, task in alone.items() if task.skipped}
    texts = {name: task.remark or skipped.get(name, "") for name, task in record.tasks.items()}
    return [(name, text) for name, text in texts.items() if name in told and text]


def warnings(record: RunRecord) -> list[tuple[str, str]]:
    """(task, remark) of the tasks, in no repetition, whose metric `trusted` is 0: what a user must read first."""
    return [(name, task.remark) for name, task in outside(record).items() if metric_of(task, "trusted") == 0]


def numbers(values: Sequence[float | None]) -> list[str]:
    """Values of one metric as text: whole numbers without, others with three decimals; an en dash for None."""
    whole = all(value is None or float(value).is_integer() for value in values)
    return ["–" if value is None else f"{value:,.0f}" if whole else f"{value:,.3f}" for value in values]
