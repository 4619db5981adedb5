"""Write `RUN/report.html`: everything about a run on one self-contained page, without a script.

>>> write(Path("runs/demo"))
PosixPath('runs/demo/report.html')
"""

import csv
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from pipelines.reporting.graph_drawing import appearance, drawing
from pipelines.reporting.headlines import columns, curves, headlines, numbers, points, remarks, stage_of, warnings
from pipelines.reporting.pictures.run_artifacts import finished_outputs
from pipelines.reporting.record_tables import command_section, lineage_section, task_section
from pipelines.reporting.repetitions import Loop, final_artifacts, loops, started_from
from pipelines.reporting.terminal_summary import loop_table
from pipelines.run_folder.folder import within
from pipelines.run_folder.record import RunRecord, TaskRecord, load
from shared.artifacts.kinds import ImageSet
from shared.artifacts.manifest import read_manifest
from shared.reporting.page import Fragment, Number, Page, escape, link, plots_in
from shared.stage.declaration import is_external

RUN_PAGE = "report.html"
_MAX_REJECTS = 100
"""Rows of a table of rejects."""
_OVERVIEW_WIDTH, _CROP_WIDTH, _SMALL_WIDTH = 372, 222, 110
"""px on the page."""
_STYLE = """
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: .8rem 0; }
.card { background: #f6f8fa; border: 1px solid #e3e8ee; border-radius: 8px; padding: .6rem 1.1rem; min-width: 6.5rem; }
.card b { display: block; font-size: 1.45rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.card span { font-size: 13px; color: #55606e; }
.of { width: 9.5rem; align-self: center; font-weight: 600; }
.state { display: inline-block; border-radius: 99px; padding: .05rem .7rem; font-size: 13px; font-weight: 600;
  background: #e7f3ea; color: #2b6e3a; vertical-align: middle; }
.state.bad { background: #fbe6e3; color: #a93226; }
.error { border-left: 4px solid #c0392b; background: #fdf3f1; padding: .6rem 1rem; margin: .8rem 0; }
.warning { border-left: 4px solid #d68910; background: #fef6e7; padding: .6rem 1rem; margin: .8rem 0; }
.meta { color: #55606e; }
.w { white-space: nowrap; }
.digest { font-family: ui-monospace, monospace; font-size: 12.5px; }
nav { font-size: 14px; margin: .4rem 0; } nav a { margin-right: 1rem; } a { color: #2563a8; }
"""
Section = Callable[[Page, Path, RunRecord], None]


def write(run: Path) -> Path:
    """Make the page of a run from its `run.json` and artifacts, however far the run got; returns its path."""
    target = run / RUN_PAGE
    partial = target.with_name(f".{RUN_PAGE}.partial")
    report(run).save(partial)
    partial.replace(target)
    return target


def report(run: Path) -> Page:
    """Make the same page without writing it."""
    record = load(run)
    page = Page(f"{record.pipeline}: {run.resolve().name}", _STYLE)
    _guarded(_summary, page, run, record)
    sections = {title: section for title, section in _SECTIONS.items() if section is not _loops or loops(record)}
    page.raw(Fragment("<nav>" + "".join(link(title, f"#{_anchor(title)}") for title in sections) + "</nav>"))
    for title, section in sections.items():
        page.heading(title, anchor=_anchor(title))
        _guarded(section, page, run, record)
    return page


def _guarded(section: Section, page: Page, run: Path, record: RunRecord) -> None:
    """Add a section, or why it could not be made: a damaged artifact must not cost the whole page."""
    try:
        section(page, run, record)
    except Exception as error:
        _error(page, "This section could not be made", str(error) or type(error).__name__)


def _error(page: Page, what: str, message: str) -> None:
    page.raw(Fragment(f"<p class='error'><b>{escape(what)}</b>: {escape(message)}</p>"))


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _summary(page: Page, run: Path, record: RunRecord) -> None:
    """State, errors, headline metrics and remarks."""
    bad = " bad" if record.state in ("failed", "interrupted") else ""
    facts = f"started {record.local_start() or '?'}, {_duration(record.seconds)}, tasks run as {record.backend}"
    state = f"<span class='state{bad}'>{escape(record.state)}</span>"
    page.raw(Fragment(f"<p class='meta'>{state} &nbsp;{escape(facts)}</p>"))
    for name, task in record.tasks.items():
        if task.error:
            _error(page, f"{name} failed", task.error)
    for name, remark in warnings(record):
        page.raw(Fragment(f"<p class='warning'><b>Not trusted, {escape(name)}</b>: {escape(remark)}</p>"))
    for row in _cards(record):
        page.raw(Fragment(f"<div class='cards'>{row}</div>"))
    for name, remark in remarks(record):
        if (name, remark) not in warnings(record):
            page.raw(Fragment(f"<p><b>{escape(name)}</b>: {escape(remark)}</p>"))
    if made := [link(path, quote(path)) for path in final_artifacts(record) if within(run, path).exists()]:
        page.raw(Fragment(f"<p>Results in the run folder: {', '.join(made)}</p>"))


def _cards(record: RunRecord) -> Iterator[str]:
    """A row for each task with headline metrics, named where there are several; the number of tasks computed."""
    rows: dict[str, list[str]] = {}
    for one in headlines(record):
        card = f"<div class='card'><b>{numbers([one.value])[0]}</b><span>{escape(one.label)}</span></div>"
        rows.setdefault(one.task, []).append(card)
    for task, cards in rows.items():
        yield (f"<div class='of'>{escape(task)}</div>" if len(rows) > 1 else "") + "".join(cards)
    computed = sum(appearance(task) == "computed" for task in record.tasks.values())
    yield f"<div class='card'><b>{computed} of {len(record.tasks)}</b><span>tasks computed now</span></div>"


def _loops(page: Page, run: Path, record: RunRecord) -> None:
    """Headline metrics and curves of each loop."""
    found = loops(record)
    for loop in found:
        if len(found) > 1:
            page.heading(loop.name, 3)
        header, rows = loop_table(record, loop)
        page.table(header, [[name, *map(Number, cells), note] for name, *cells, note in rows])
        for artifact in started_from(record, loop):
            page.text(f"Selected: {artifact}, from before {loop.name}-0.")
        _plots(page, loop)


def _plots(page: Page, loop: Loop) -> None:
    """Plot the headline metrics of a loop together, and its curves with those of the same metric."""
    plots = {"headline metrics": columns(loop)}
    for column in curves(loop):
        plots.setdefault(column.metric.replace("_", " "), []).append(column)
    for title, found in plots.items():
        lines = {column.label: points(column.values) for column in found}
        if any(lines.values()):
            page.plot(f"{loop.name}: {title}", {label: line for label, line in lines.items() if line}, "round")


def _images(page: Page, run: Path, record: RunRecord) -> None:
    from pipelines.reporting.pictures.class_rows import class_rows
    from pipelines.reporting.pictures.panels import galleries

    rows, found = class_rows(run, record), galleries(run, record)
    if not rows and not found:
        page.text("No images yet.")
    for title, pictures in rows:
        page.heading(title, 3)
        page.images(pictures, _SMALL_WIDTH)
    if found:
        page.text("Labelled images first, then unlabelled ones. Below each image a part of it, enlarged.")
    if loops(record):
        page.text("In pseudo-labels, training ignores the orange pixels.")
    for gallery in found:
        page.heading(gallery.title, 3)
        page.images(gallery.overview, _OVERVIEW_WIDTH)
        for row in gallery.crops:
            page.images(row, _CROP_WIDTH)


def _task_plots(page: Page, run: Path, record: RunRecord) -> None:
    """Repeat the plots of the tasks' own pages."""
    count = 0
    for name, task in record.tasks.items():
        path = within(run, f"{name}/report.html")
        if task.skipped or not path.is_file():
            continue
        for plot in plots_in(path.read_text(encoding="utf-8")):
            page.raw(Fragment(f"<figure>{plot}<figcaption>{escape(name)}</figcaption></figure>"))
            count += 1
    if not count:
        page.text("No task has a plot yet.")


def _graph(page: Page, run: Path, record: RunRecord) -> None:
    page.raw(Fragment(drawing(record)))


def _rejects(page: Page, run: Path, record: RunRecord) -> None:
    """List the files that were rejected by the tasks which made image sets."""
    found = [(name, folder) for name, folder in finished_outputs(run, record, ImageSet)]
    for name, folder in found:
        read_manifest(folder, ImageSet)
        path = folder / "rejects.csv"
        if not path.is_file():
            continue
        for line in _sources(record.tasks[name]):
            page.text(f"{name}: {line}")
        header, *rows = list(csv.reader(path.open(encoding="utf-8", newline=""))) or [[]]
        if not rows:
            page.text("Every file could be read: there are no rejects.")
            continue
        page.table(header, rows[:_MAX_REJECTS])
        if len(rows) > _MAX_REJECTS:
            page.text(f"{len(rows) - _MAX_REJECTS} more are in {path.relative_to(run.resolve())}.")
    if not found:
        page.text("No images yet.")


def _sources(task: TaskRecord) -> list[str]:
    """What the task read from outside of the run, and its remark on it."""
    stage = stage_of(task)
    names = [name for name, info in stage.parameters().items() if is_external(info)] if stage else []
    read = [f"{name} {task.parameters[name]}" for name in names if task.parameters.get(name)]
    return [*read, *([task.remark] if task.remark else [])]


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


_SECTIONS: dict[str, Section] = {
    "Rounds": _loops,
    "Images": _images,
    "Plots of the tasks": _task_plots,
    "Graph": _graph,
    "Rejects": _rejects,
    "Tasks": task_section,
    "Artifacts and lineage": lineage_section,
    "Commands": command_section,
}

if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
