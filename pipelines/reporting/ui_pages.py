"""Pages of `cytoloom ui` besides those of a run: the list of the runs, and the content of a folder."""

from pathlib import Path
from typing import Any

from pipelines.reporting.headlines import Headline, headlines, numbers
from pipelines.reporting.run_list import quoted, run_url
from pipelines.run_folder.folder import within
from pipelines.run_folder.record import RunRecord, load
from shared.reporting.page import Fragment, Number, Page, escape, link
from shared.system.errors import UserError


def overview(runs: dict[str, Path]) -> Page:
    """List the runs (name -> folder) with their headline metrics, and let two be chosen for a comparison."""
    page = Page("Runs")
    if not runs:
        page.text("There is no run here yet. Start one: cytoloom run label_free --source DIR")
        return page
    records = {name: _load(folder) for name, folder in runs.items()}
    scores = {name: _by_label(record) for name, record in records.items()}
    labels = list(dict.fromkeys(label for found in scores.values() for label in found))
    rows = [
        [*_choice(name, number, len(runs)), link(name, run_url(name)), *_facts(record), *_scores(scores[name], labels)]
        for number, (name, record) in enumerate(records.items())
    ]
    page.raw(Fragment("<form action='/compare'>"))
    page.table(["A", "B", "run", "pipeline", "state", "started", "seconds", *labels], rows)
    page.raw(Fragment("<p><button>Compare A with B</button></p></form>"))
    for name, found in scores.items():
        for task, remark in dict.fromkeys((one.task, one.remark) for one in found.values() if one.remark):
            page.text(f"* {name}, {task}: {remark}")
    return page


def _load(folder: Path) -> RunRecord | str:
    """The record of a run, or why it cannot be read."""
    try:
        return load(folder)
    except (UserError, OSError) as error:
        return str(error)


def _by_label(record: RunRecord | str) -> dict[str, Headline]:
    """Label -> headline metric, of the latest task that has one of this label."""
    found: dict[str, Headline] = {}
    for one in headlines(record) if isinstance(record, RunRecord) else ():
        found.setdefault(one.label, one)
    return found


def _choice(name: str, number: int, count: int) -> list[Fragment]:
    """Two radio buttons; the latest run is B, the one before it A."""
    chosen = {"a": min(1, count - 1), "b": 0}
    return [
        Fragment(f"<input type='radio' name='{side}' value='{escape(name)}'{' checked' if number == first else ''}>")
        for side, first in chosen.items()
    ]


def _facts(record: RunRecord | str) -> list[Any]:
    """Pipeline, state, start and seconds."""
    if isinstance(record, str):
        return ["", record, "", ""]
    return [record.pipeline, record.state, record.local_start(), round(record.seconds)]


def _scores(found: dict[str, Headline], labels: list[str]) -> list[str]:
    """One cell for each label; a star where the task has a remark, which stands below the table."""
    cells = [found.get(label) for label in labels]
    return [Number("" if one is None else numbers([one.value])[0] + (" *" if one.remark else "")) for one in cells]


def folder_page(name: str, folder: Path, inner: Path) -> Page:
    """List a folder inside a run. name: of the run, folder: its folder."""
    path = inner.relative_to(folder.resolve()).as_posix()
    page = Page(f"{name}/{'' if path == '.' else path}")
    rows = []
    for file in sorted(inner.iterdir(), key=lambda file: (file.is_file(), file.name)):
        if file.name.startswith("."):
            continue
        try:
            size = f"{within(folder, file).stat().st_size:,}"
        except (UserError, OSError):  # a link that leads out or nowhere; a file that a live run has removed
            continue
        slash, size = ("/", "") if file.is_dir() else ("", size)
        address = f"{run_url(name)}files/{quoted(file.relative_to(folder.resolve()).as_posix())}{slash}"
        rows.append([link(file.name + slash, address), Number(size)])
    page.table(["name", "bytes"], rows)
    page.raw(Fragment(f"<p>{link('page of the run', run_url(name))}</p>"))
    return page
