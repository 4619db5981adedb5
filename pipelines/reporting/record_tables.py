"""Sections of a run's page that list its record: tasks, artifacts with their lineage, and commands."""

from pathlib import Path
from urllib.parse import quote

from pipelines.reporting.graph_drawing import appearance
from pipelines.run_folder.folder import within
from pipelines.run_folder.record import RunRecord, TaskRecord
from shared.reporting.page import Fragment, Number, Page, escape, link

_MAX_METRICS = 6
"""Metrics of a task in the table; its own page has all."""


def task_section(page: Page, run: Path, record: RunRecord) -> None:
    """List every task with its state, time and metrics, and link to its page and log."""
    rows = [
        [
            _nowrap(name),
            _state(task),
            Number(f"{task.seconds:.1f}"),
            task.attempts or "",
            ", ".join(f"{key} {value:.4g}" for key, value in list(task.metrics.items())[:_MAX_METRICS]),
            _links(run, name),
        ]
        for name, task in record.tasks.items()
    ]
    total = sum(task.seconds for task in record.tasks.values())
    page.table(
        ["task", "state", "seconds", "attempts", "metrics", "more"],
        [*rows, ["all", "", Number(f"{total:.1f}"), "", "", ""]],
    )
    page.text("The links lead to files of the run folder. The page itself is complete without them.")


def _state(task: TaskRecord) -> str:
    return task.skipped or (f"from the {task.origin}" if appearance(task) == "cached" else task.state)


def _links(run: Path, name: str) -> Fragment:
    """Links to those files of a task that exist."""
    files = {"page": f"{name}/report.html", "log": f"{name}/log.txt"}
    found = [link(word, quote(path)) for word, path in files.items() if within(run, path).is_file()]
    return _nowrap(Fragment(" ".join(found)))


def _nowrap(text: str) -> Fragment:
    return Fragment(f"<span class='w'>{escape(text)}</span>")


def lineage_section(page: Page, run: Path, record: RunRecord) -> None:
    """List every artifact with its digest, and the artifacts it was made from."""
    page.text("Equal contents have equal digests, whichever task made them and wherever they are stored.")
    rows = [
        [_nowrap(f"{name}/{key}"), output.kind, _digest(output.digest[:16]), _sources(task)]
        for name, task in record.tasks.items()
        for key, output in task.outputs.items()
        if output.digest and output.is_artifact
    ]
    page.table(["artifact", "type", "digest", "made from"], rows)


def _digest(text: str) -> Fragment:
    return Fragment(f"<span class='digest'>{escape(text)}</span>")


def _sources(task: TaskRecord) -> Fragment:
    return Fragment(
        "<br>".join(
            f"{escape(f'{key}: {given.task}/{given.output}')} {_digest(given.digest[:12])}"
            for key, given in task.inputs.items()
        )
    )


def command_section(page: Page, run: Path, record: RunRecord) -> None:
    """Give the command that repeats each task, and the one of the whole run."""
    page.text(
        "Each command repeats one task with the same inputs and parameters. Its outputs go beside the present ones."
    )
    for name, task in record.tasks.items():
        if task.rerun:
            page.raw(Fragment(f"<details><summary>{escape(name)}</summary><pre>{escape(task.rerun)}</pre></details>"))
    if record.command:
        page.text("The whole run:")
        page.code(" ".join(record.command))
