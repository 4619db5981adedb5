"""Two runs side by side: what was set differently, what came of it, and the same images from both."""

import base64
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipelines.reporting.rounds import SCORED_ON_TRAINING_LABELS, handed_on, rounds, scored_on_training_labels
from pipelines.run_folder.folder import within
from pipelines.run_folder.record import RunRecord, TaskRecord, load
from shared.reporting.page import Page, escape, line_plot
from shared.system.errors import UserError

PICTURES = 6
WIDTH = 460
"""px of a picture on the page."""
STYLE = """
.pair { display: flex; gap: 1rem; margin: .4rem 0 1.2rem; } .pair figure { margin: 0; } .pair img { width: 460px; }
td.differs { background: #fff6dd; }
"""
FED = {"agreement", "converged", "skip", "incumbent_round", "number"}
"""Parameters of stages that the graph feeds from task to task; nobody sets them."""
METRICS = ("dice", "f1", "ap50", "pq", "seg", "cells", "cells_per_image", "median_area_px", "agreement", "loss")
"""Shown where both runs have them, in this order; the rest is in the stages' own pages."""


def compare(name_a: str, a: Path, name_b: str, b: Path) -> Page:
    """Page about two run folders. Raises UserError where one of them has no readable record."""
    first, second = load(a), load(b)
    page = Page(f"{name_a} and {name_b}", STYLE)
    page.raw(
        f"<p>A: <a href='/runs/{quote(name_a)}/'>{escape(name_a)}</a> &nbsp; "
        f"B: <a href='/runs/{quote(name_b)}/'>{escape(name_b)}</a></p>"
    )
    page.heading("Settings that differ")
    rows = differences(first, second)
    if rows:
        page.table(["where", "A", "B"], rows)
    else:
        page.text("None: the parameters of all tasks are equal.")
    page.heading("Results")
    found = results(first, second)
    if found:
        page.table(["task", "metric", "A", "B", "B - A"], found)
    else:
        page.text("The two have no metric in common yet.")
    for side, record in (("A", first), ("B", second)):
        if scored_on_training_labels(record):
            page.text(f"Scores of {side} are {SCORED_ON_TRAINING_LABELS}.")
    _lines(page, first, second)
    _contents(page, first, second)
    _pictures(page, a, first, b, second)
    return page


def differences(a: RunRecord, b: RunRecord) -> list[list[str]]:
    """(where, value in A, value in B) of every parameter that was set differently, one line for all EM rounds."""
    rows = [["pipeline", a.pipeline, b.pipeline]] if a.pipeline != b.pipeline else []
    of_run = _unequal("", a.parameters, b.parameters)
    rows += of_run
    said = {name for name, *_ in of_run} | FED
    for name in [*a.tasks, *(name for name in b.tasks if name not in a.tasks)]:
        mine, theirs = a.tasks.get(name), b.tasks.get(name)
        if mine is None or theirs is None:
            rows.append([name, "there" if mine else "not there", "there" if theirs else "not there"])
        else:
            unequal = _unequal("", mine.parameters, theirs.parameters)
            rows += [[f"{name}.{key}", *values] for key, *values in unequal if key not in said]
    return _joined(rows)


def _joined(rows: list[list[str]]) -> list[list[str]]:
    """Lines that differ in the EM round alone become one: em-0/cluster.k and em-1/cluster.k are em-*/cluster.k."""
    every = [(re.sub(r"^em-\d+/", "em-*/", where), *values) for where, *values in rows]
    kept: dict[tuple[str, ...], list[str]] = {}
    for general, row in zip(every, rows, strict=True):
        kept[general] = list(general) if general in kept else row
    return list(kept.values())


def _unequal(prefix: str, a: dict[str, Any], b: dict[str, Any]) -> list[list[str]]:
    names = [*a, *(name for name in b if name not in a)]
    return [[prefix + name, str(a.get(name, "")), str(b.get(name, ""))] for name in names if a.get(name) != b.get(name)]


def results(a: RunRecord, b: RunRecord) -> list[list[Any]]:
    """(task, metric, A, B, B - A) of what both have."""
    rows: list[list[Any]] = []
    for name, task in a.tasks.items():
        other = b.tasks.get(name, TaskRecord())
        for metric in METRICS:
            if metric in task.metrics and metric in other.metrics:
                mine, theirs = task.metrics[metric], other.metrics[metric]
                rows.append([name, metric, mine, theirs, theirs - mine])
    rows.append(["all", "seconds", round(_seconds(a), 1), round(_seconds(b), 1), round(_seconds(b) - _seconds(a), 1)])
    if handed_on(a) or handed_on(b):
        rows.append(["select_model", "handed on", handed_on(a) or "", handed_on(b) or "", ""])
    return rows


def _seconds(record: RunRecord) -> float:
    return sum(task.seconds for task in record.tasks.values())


def _lines(page: Page, a: RunRecord, b: RunRecord) -> None:
    for what, score in (("Pixel Dice", "dice"), ("F1 at IoU 0.5", "f1")):
        lines = {
            side: [(i, value) for i, em in enumerate(rounds(record)) if (value := em.score(score)) is not None]
            for side, record in (("A", a), ("B", b))
        }
        if all(lines.values()):
            page.raw(line_plot(what, lines, "EM round", ""))


def _contents(page: Page, a: RunRecord, b: RunRecord) -> None:
    """Where the two part: the first artifacts that are not the same."""
    page.heading("Contents")
    rows = []
    for name, task in a.tasks.items():
        other = b.tasks.get(name)
        for key, output in task.outputs.items():
            theirs = other.outputs.get(key) if other else None
            if output.digest and theirs and theirs.digest:
                equal = "equal" if output.digest == theirs.digest else "differ"
                rows.append([f"{name}/{key}", output.kind, output.digest[:12], theirs.digest[:12], equal])
    if rows:
        page.table(["artifact", "type", "A", "B", ""], rows)
    else:
        page.text("The two have no finished artifact in common yet.")


def _pictures(page: Page, a: Path, first: RunRecord, b: Path, second: RunRecord) -> None:
    """The same images with the cells that either found."""
    try:
        mine, theirs = _overlays(a, first), _overlays(b, second)
        common = sorted(set(mine) & set(theirs))
        step = max(1, len(common) // PICTURES)
        chosen = {key: (within(a, mine[key]), within(b, theirs[key])) for key in common[::step][:PICTURES]}
    except UserError as error:
        page.text(f"No pictures: {error}")
        return
    if chosen:
        page.heading("Cells found: A left, B right")
    for key, paths in chosen.items():
        figures = "".join(f"<figure>{_picture(path)}</figure>" for path in paths)
        page.raw(f"<p>{escape(key)}</p><div class='pair'>{figures}</div>")


def _overlays(run: Path, record: RunRecord) -> dict[str, Path]:
    """Key -> overlay of the run's predictions."""
    for task in record.tasks.values():
        if task.stage == "infer" and task.state == "done" and "predictions" in task.outputs:
            folder = within(run, f"{task.outputs['predictions'].path}/overlays")
            return {path.stem: path for path in sorted(folder.glob("*.png"))}
    return {}


def _picture(path: Path) -> str:
    import cv2

    picture = cv2.imread(str(path))
    if picture is None:
        return "<p>unreadable</p>"
    height = max(1, round(picture.shape[0] * WIDTH / picture.shape[1]))
    done, data = cv2.imencode(".jpg", cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA))
    assert done
    return f"<img alt='' src='data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}'>"
