"""Compare two runs: settings that differ, results, contents, and the same images from both."""

from pathlib import Path
from typing import Any

from pipelines.reporting.headlines import columns, headlines, metric_of, named_headlines, points
from pipelines.reporting.repetitions import any_repetition, loops, selected, started_from
from pipelines.reporting.run_list import run_url
from pipelines.run_folder.record import RunRecord, TaskRecord, load
from shared.reporting.page import Fragment, Page, link
from shared.reporting.plots import Points
from shared.system.errors import ArtifactError, UserError

_MAX_IMAGES = 6
_IMAGE_WIDTH = 460
"""px on the page."""
_BOTH_SIDES = "A", "B"


def compare(name_a: str, a: Path, name_b: str, b: Path) -> Page:
    """Make the page about two run folders. Raises UserError where one of them has no readable record."""
    first, second = load(a), load(b)
    page = Page(f"{name_a} and {name_b}")
    sides = [f"{side}: {link(name, run_url(name))}" for side, name in zip(_BOTH_SIDES, (name_a, name_b), strict=True)]
    page.raw(Fragment(f"<p>{' &nbsp; '.join(sides)}</p>"))
    page.heading("Settings that differ")
    _table(page, ["where", "A", "B"], differences(first, second), "None: the parameters of all tasks are equal.")
    page.heading("Results")
    none = "The two runs have no metric in common yet."
    _table(page, ["task", "metric", "A", "B", "B - A"], results(first, second), none)
    for side, record in (("A", first), ("B", second)):
        for task, remark in dict.fromkeys((found.task, found.remark) for found in headlines(record)):
            if remark:
                page.text(f"{side}, {task}: {remark}")
    for title, lines in plots(first, second).items():
        page.plot(title, lines, "round")
    page.heading("Contents")
    none = "The two runs have no finished artifact in common yet."
    _table(page, ["artifact", "type", "A", "B", ""], contents(first, second), none)
    _predictions(page, (a, first), (b, second))
    return page


def _table(page: Page, header: list[str], rows: list[list[Any]], none: str) -> None:
    if rows:
        page.table(header, rows)
    else:
        page.text(none)


def differences(a: RunRecord, b: RunRecord) -> list[list[str]]:
    """(where, value in A, value in B) of every parameter that was set differently; one row for all repetitions."""
    rows = [["pipeline", a.pipeline, b.pipeline]] if a.pipeline != b.pipeline else []
    of_run = _unequal(a.parameters, b.parameters)
    rows += of_run
    for name in [*a.tasks, *(name for name in b.tasks if name not in a.tasks)]:
        mine, theirs = a.tasks.get(name), b.tasks.get(name)
        if mine is None or theirs is None:
            rows.append([name, "present" if mine else "absent", "present" if theirs else "absent"])
        else:
            not_set = {*(parameter for parameter, *_ in of_run), *mine.fed, *theirs.fed}
            unequal = _unequal(mine.parameters, theirs.parameters)
            rows += [[f"{name}.{key}", *values] for key, *values in unequal if key not in not_set]
    return _joined(rows)


def _unequal(a: dict[str, Any], b: dict[str, Any]) -> list[list[str]]:
    names = [*a, *(name for name in b if name not in a)]
    return [[name, str(a.get(name, "")), str(b.get(name, ""))] for name in names if a.get(name) != b.get(name)]


def _joined(rows: list[list[str]]) -> list[list[str]]:
    """Join rows that differ in the repetition alone: em-0/cluster.k and em-1/cluster.k become em-*/cluster.k."""
    kept: dict[tuple[str, ...], list[str]] = {}
    for where, *values in rows:
        general = any_repetition(where), *values
        kept[general] = list(general) if general in kept else [where, *values]
    return list(kept.values())


def results(a: RunRecord, b: RunRecord) -> list[list[Any]]:
    """(task, metric, A, B, B - A) of the headline metrics that both have, of the time, and of what was selected."""
    rows: list[list[Any]] = []
    for name, task in a.tasks.items():
        other = b.tasks.get(name, TaskRecord())
        for metric, label in named_headlines(task).items():
            mine, theirs = metric_of(task, metric), metric_of(other, metric)
            if mine is not None and theirs is not None:
                rows.append([name, label, mine, theirs, theirs - mine])
    seconds = [round(sum(task.seconds for task in record.tasks.values()), 1) for record in (a, b)]
    rows.append(["all", "seconds", *seconds, round(seconds[1] - seconds[0], 1)])
    chosen = [_selected(record) for record in (a, b)]
    names = dict.fromkeys([*chosen[0], *chosen[1]])
    return rows + [[name, "selected", chosen[0].get(name, ""), chosen[1].get(name, ""), ""] for name in names]


def _selected(record: RunRecord) -> dict[str, str]:
    """Loop -> the repetition that it selected, or what it started from."""
    found = {loop.name: selected(record, loop) or started_from(record, loop) for loop in loops(record)}
    return {name: ", ".join(chosen) for name, chosen in found.items() if chosen}


def plots(a: RunRecord, b: RunRecord) -> dict[str, dict[str, Points]]:
    """Title -> lines of A and B over the repetitions, of each headline metric that both have."""
    lines: dict[str, dict[str, Points]] = {}
    for side, record in zip(_BOTH_SIDES, (a, b), strict=True):
        for loop in loops(record):
            for column in columns(loop):
                lines.setdefault(f"{loop.name}: {column.label}", {})[side] = points(column.values)
    return {title: found for title, found in lines.items() if len(found) == 2 and all(found.values())}


def contents(a: RunRecord, b: RunRecord) -> list[list[str]]:
    """(artifact, type, digest in A, digest in B, equal or differ) of the artifacts that both have."""
    rows = []
    for name, task in a.tasks.items():
        others = b.tasks.get(name, TaskRecord()).outputs
        for key, output in task.outputs.items():
            if output.is_artifact and output.digest and key in others and others[key].digest:
                digests = output.digest[:12], others[key].digest[:12]
                word = "equal" if output.digest == others[key].digest else "differ"
                rows.append([f"{name}/{key}", output.kind, *digests, word])
    return rows


def _predictions(page: Page, a: tuple[Path, RunRecord], b: tuple[Path, RunRecord]) -> None:
    """Add the same images with the predictions of either run."""
    from pipelines.reporting.pictures.run_artifacts import RunArtifacts
    from shared.artifacts.keys import evenly_spaced

    try:
        mine, theirs = RunArtifacts(*a), RunArtifacts(*b)
        common = sorted(mine.predicted() & theirs.predicted())
        rows = [
            (key, [_predicted(run, key, side) for side, run in zip(_BOTH_SIDES, (mine, theirs), strict=True)])
            for key in evenly_spaced(common, _MAX_IMAGES)
        ]
    except (UserError, ArtifactError, OSError) as error:
        page.text(f"No images: {error}")
        return
    if rows:
        page.heading("Predictions")
    for key, images in rows:
        page.heading(key, 3)
        page.images(images, _IMAGE_WIDTH)


def _predicted(artifacts: Any, key: str, side: str) -> tuple[Any, str]:
    """The image of one side with its predictions, and a caption."""
    from pipelines.reporting.pictures.panels import predictions_of

    drawn, found = predictions_of(artifacts, key)
    return drawn, f"{side}: {found}"
