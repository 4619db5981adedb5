"""`RUN/report.html`: everything about a run on one self-contained page, without a script.

>>> write(Path("runs/demo"))
PosixPath('runs/demo/report.html')
"""

import csv
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from pipelines.reporting.drawing import appearance_of, drawing
from pipelines.reporting.rounds import (
    SCORED_ON_TRAINING_LABELS,
    START,
    EmRound,
    averaged,
    ending,
    final_scores,
    handed_on,
    rounds,
    scored_on_training_labels,
    shipped,
)
from pipelines.run_folder.folder import folder_within, within
from pipelines.run_folder.record import RunRecord, load
from shared.artifacts.kinds import ImageSet
from shared.artifacts.manifest import read_manifest
from shared.reporting.page import Page, escape, line_plot, plots_in

NAME = "report.html"
REJECTS_SHOWN = 100
PICTURE_WIDTH, CROP_WIDTH = 372, 222
"""px on the page."""
TRAINING = ("pretrain", "train_segmentor")
BESIDE = ("system.HTML", "system.Metrics", "system.ClassificationMetrics")
"""Kinds that tell about a task and are no artifacts."""
STYLE = """
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0 1.4rem; }
.card { background: #f6f8fa; border: 1px solid #e3e8ee; border-radius: 8px; padding: .6rem 1.1rem; min-width: 6.5rem; }
.card b { display: block; font-size: 1.45rem; font-weight: 650; font-variant-numeric: tabular-nums; }
.card span { font-size: 13px; color: #55606e; }
.state { display: inline-block; border-radius: 99px; padding: .05rem .7rem; font-size: 13px; font-weight: 600;
  background: #e7f3ea; color: #2b6e3a; vertical-align: middle; }
.state.bad { background: #fbe6e3; color: #a93226; }
.error { border-left: 4px solid #c0392b; background: #fdf3f1; padding: .6rem 1rem; margin: .8rem 0; }
.meta { color: #55606e; }
td.w { white-space: nowrap; }
.digest { font-family: ui-monospace, monospace; font-size: 12.5px; }
nav { font-size: 14px; margin: .4rem 0; } nav a { margin-right: 1rem; } a { color: #2563a8; }
"""


def write(run_folder: Path) -> Path:
    """Make the report of a run from its `run.json` and artifacts, however far the run got; returns its path."""
    target = run_folder / NAME
    partial = target.with_name(f".{NAME}.partial")
    report(run_folder).save(partial)
    partial.replace(target)
    return target


def report(run_folder: Path) -> Page:
    """The same as a page; nothing is written."""
    record = load(run_folder)
    page = Page(f"{record.pipeline}: {run_folder.resolve().name}", STYLE)
    sections: list[tuple[str, Callable[[Page, Path, RunRecord], None]]] = [
        ("", _summary),
        ("Scores, round by round", _scores),
        ("Pictures", _pictures),
        ("Training", _training),
        ("The graph", _graph),
        ("Images and rejects", _rejects),
        ("Tasks", _tasks),
        ("Artifacts and where they come from", _lineage),
        ("Run a task again", _commands),
    ]
    names = [name for name, _ in sections if name]
    for name, section in sections:
        if name:
            page.raw(f"<h2 id='{_anchor(name)}'>{escape(name)}</h2>")
        try:
            section(page, run_folder, record)
        except Exception as error:  # a damaged artifact must not cost the whole report
            page.raw(f"<p class='error'>This part could not be made: {escape(str(error) or type(error).__name__)}</p>")
        if not name:
            page.raw("<nav>" + "".join(f"<a href='#{_anchor(n)}'>{escape(n)}</a>" for n in names) + "</nav>")
    return page


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-").replace(",", "")


def _summary(page: Page, run: Path, record: RunRecord) -> None:
    bad = record.state in ("failed", "interrupted")
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.started)) if record.started else "?"
    page.raw(
        f"<p class='meta'><span class='state{' bad' if bad else ''}'>{escape(record.state)}</span> &nbsp;started "
        f"{started}, {_duration(record.seconds)}, tasks run as {escape(record.runner)}</p>"
    )
    for name, task in record.tasks.items():
        if task.error:
            page.raw(f"<p class='error'><b>{escape(name)}</b> failed: {escape(task.error)}</p>")
    cards: list[tuple[str, str]] = []
    infer = next((task for task in record.tasks.values() if task.stage == "infer" and task.state == "done"), None)
    if infer and "images" in infer.metrics:
        cards.append((f"{infer.metrics['images']:,.0f}", "images"))
    if infer and "cells" in infer.metrics:
        cards.append((f"{infer.metrics['cells']:,.0f}", "cells found"))
    em = rounds(record)
    final = final_scores(record)
    where = f", {SCORED_ON_TRAINING_LABELS}" if scored_on_training_labels(record) else ""
    for metric, what in (("dice", "pixel Dice"), ("f1", "F1 of cells, IoU 0.5")):
        if metric in final:
            cards.append((f"{final[metric]:.3f}", what + where))
    if em:
        passed = sum(r.tasks["train_segmentor"].state == "done" for r in em if "train_segmentor" in r.tasks)
        cards.append((f"{passed - sum(r.skipped for r in em)} of {len(em)}", "EM rounds trained"))
    computed = sum(appearance_of(task) == "computed" for task in record.tasks.values())
    cards.append((f"{computed} of {len(record.tasks)}", "tasks computed now"))
    shown = "".join(
        f"<div class='card'><b>{escape(value)}</b><span>{escape(what)}</span></div>" for value, what in cards
    )
    page.raw(f"<div class='cards'>{shown}</div>")
    if told := shipped(record):
        page.text(told)


def _scores(page: Page, run: Path, record: RunRecord) -> None:
    em = rounds(record)
    if not em:
        page.text("This graph has no EM rounds.")
        return
    scored = [r.tasks["evaluate"] for r in em if "evaluate" in r.tasks and r.tasks["evaluate"].state == "done"]
    if scored and not any(r.dice is not None for r in em):
        page.text("No image has labels, so nothing could be scored; agreement tells how far the rounds have settled.")
    best = handed_on(record)
    with_earlier = ", its weights averaged with those of the rounds before" if averaged(record, best) else ""
    handed = "" if best in (None, START) else f"Handed on: the segmentor of {best}{with_earlier}. "
    if text := handed + ending(record):
        page.text(text)
    if scored_on_training_labels(record):
        page.text(
            f"Dice, F1 and the like are {SCORED_ON_TRAINING_LABELS}. Labels beyond --param use_labels would score it fairly."
        )
    header = ["round", "Dice", "F1 at 0.5", "AP at 0.5", "PQ", "agreement with the round before", "seconds", ""]
    rows = [
        [r.name]
        + ["–" if value is None else value for value in (r.dice, r.f1, r.score("ap50"), r.score("pq"), r.agreement)]
        + [round(r.seconds, 1), _verdict(r, best)]
        for r in em
    ]
    page.table(header, rows)
    lines = {
        "pixel Dice": [(i, r.dice) for i, r in enumerate(em) if r.dice is not None],
        "F1 at IoU 0.5": [(i, r.f1) for i, r in enumerate(em) if r.f1 is not None],
        "agreement": [(i, r.agreement) for i, r in enumerate(em) if r.agreement is not None],
    }
    if any(lines.values()):
        page.raw(line_plot("Score of each round", {n: line for n, line in lines.items() if line}, "EM round", ""))
    shares = {"proposed": _per_round(em, "cluster"), "refined": _per_round(em, "refine_masks")}
    edges = {"borders on edges": _per_round(em, "select_model", "edge_score")}
    if any(edges.values()):
        page.raw(line_plot("Steepness on the borders, against around them", edges, "EM round", ""))
    if any(shares.values()):
        page.raw(line_plot("Share of the pixels called cell", shares, "EM round", ""))


def _verdict(em: EmRound, best: str | None) -> str:
    """What became of a round, in words."""
    if em.skipped:
        return "passed through: the loop was over"
    gate = em.tasks.get("select_model")
    if em.name == best:
        return "handed on as was asked for, though not better than the best before" if em.forced else "handed on"
    return "not better than the best before" if gate and gate.metrics.get("accepted") == 0 else ""


def _per_round(em: list[EmRound], stage: str, metric: str = "foreground_share") -> list[tuple[float, float]]:
    """Points (round, metric) of the rounds that computed it."""
    found = ((i, r.tasks[stage]) for i, r in enumerate(em) if stage in r.tasks and not r.tasks[stage].skipped)
    return [(i, task.metrics[metric]) for i, task in found if metric in task.metrics]


def _pictures(page: Page, run: Path, record: RunRecord) -> None:
    from pipelines.reporting.panels import galleries

    found = galleries(run, record)
    if not found:
        page.text("No images yet.")
    else:
        page.text("Labelled images first, then some that were learned from. Below each, one part of it enlarged.")
    for gallery in found:
        page.heading(gallery.title, 3)
        page.images(gallery.overview, PICTURE_WIDTH)
        for row in gallery.steps:
            page.images(row, CROP_WIDTH)


def _training(page: Page, run: Path, record: RunRecord) -> None:
    count = 0
    for name, task in record.tasks.items():
        path = within(run, f"{name}/report.html")
        if task.stage not in TRAINING or task.skipped or not path.is_file():
            continue
        plots = plots_in(path.read_text(encoding="utf-8"))
        count += len(plots)
        page.raw("".join(f"<figure>{plot}<figcaption>{escape(name)}</figcaption></figure>" for plot in plots))
    if not count:
        page.text("Nothing was trained.")


def _graph(page: Page, run: Path, record: RunRecord) -> None:
    page.raw(drawing(record))


def _rejects(page: Page, run: Path, record: RunRecord) -> None:
    for name, task in record.tasks.items():
        output = task.outputs.get("images")
        if task.stage != "ingest" or output is None or task.state != "done":
            continue
        folder = folder_within(run, output.path)
        read_manifest(folder, ImageSet)
        path = folder / "rejects.csv"
        rows = list(csv.reader(path.open(encoding="utf-8", newline=""))) if path.is_file() else []
        numbers = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in task.metrics.items())
        page.text(
            f"Source: {task.parameters.get('source', '?')}" + (f". Ingest counted: {numbers}." if numbers else ".")
        )
        own = within(run, f"{name}/report.html")
        if own.is_file() and (layout := re.search(r"<p>(Layout: [^<]*)</p>", own.read_text(encoding="utf-8"))):
            page.raw(layout[0])
        if len(rows) > 1:
            page.table(rows[0], rows[1 : REJECTS_SHOWN + 1])
            if len(rows) - 1 > REJECTS_SHOWN:
                page.text(f"{len(rows) - 1 - REJECTS_SHOWN} more are in {output.path}/rejects.csv.")
        else:
            page.text("Every file could be read: there are no rejects.")
        return
    page.text("Nothing was ingested.")


def _tasks(page: Page, run: Path, record: RunRecord) -> None:
    head = "".join(f"<th>{name}</th>" for name in ("task", "state", "seconds", "attempts", "metrics", "more"))
    rows = []
    for name, task in record.tasks.items():
        state = task.skipped or {"cached": f"from the {task.origin}"}.get(appearance_of(task), task.state)
        metrics = ", ".join(f"{key} {value:.4g}" for key, value in list(task.metrics.items())[:6])
        links = [("page", f"{name}/report.html"), ("log", f"{name}/log.txt")]
        more = " ".join(f"<a href='{quote(path)}'>{word}</a>" for word, path in links if within(run, path).is_file())
        rows.append(
            f"<tr><td class='w'>{escape(name)}</td><td>{escape(state)}</td><td class='n'>{task.seconds:.1f}</td>"
            f"<td class='n'>{task.attempts or ''}</td><td>{escape(metrics)}</td><td class='w'>{more}</td></tr>"
        )
    total = sum(task.seconds for task in record.tasks.values())
    rows.append(
        f"<tr><td><b>all</b></td><td></td><td class='n'><b>{total:.1f}</b></td><td></td><td></td><td></td></tr>"
    )
    page.raw(f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>")
    page.text("The links lead to files of the run folder; this page itself needs none of them.")


def _lineage(page: Page, run: Path, record: RunRecord) -> None:
    page.text("Equal contents have equal digests, whoever made them and wherever they lie.")
    rows = []
    for name, task in record.tasks.items():
        sources = "<br>".join(
            f"{escape(f'{key}: {given.task}/{given.output}')} <span class='digest'>{given.digest[:12]}</span>"
            for key, given in task.inputs.items()
        )
        for key, output in task.outputs.items():
            if output.digest and output.kind not in BESIDE:
                rows.append(
                    f"<tr><td class='w'>{escape(name)}/{escape(key)}</td><td>{escape(output.kind)}</td>"
                    f"<td class='digest'>{escape(output.digest[:16])}</td><td>{sources}</td></tr>"
                )
    head = "".join(f"<th>{text}</th>" for text in ("artifact", "type", "digest", "made from"))
    page.raw(f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>")


def _commands(page: Page, run: Path, record: RunRecord) -> None:
    page.text("Each command runs one task alone, with the same inputs and parameters, and writes beside what is there.")
    for name, task in record.tasks.items():
        if task.rerun:
            page.raw(f"<details><summary>{escape(name)}</summary><pre>{escape(task.rerun)}</pre></details>")
    if record.command:
        page.text("The whole run:")
        page.code(" ".join(record.command))


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
