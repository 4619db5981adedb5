"""What `cytoloom run` prints at its end about the results: a table of each loop, headline metrics, remarks."""

from pipelines.reporting.headlines import columns, headlines, numbers, remarks, warnings
from pipelines.reporting.repetitions import Loop, Repetition, final_artifacts, loops, selected, started_from
from pipelines.run_folder.record import RunRecord


def terminal_summary(record: RunRecord) -> str:
    """Return the text; empty where there is nothing to tell."""
    parts = [f"NOT TRUSTED, {name}: {remark}" for name, remark in warnings(record)]
    parts += [table for loop in loops(record) if (table := _table(record, loop))]
    if found := _headlines(record):
        parts.append("\n".join(found))
    first = warnings(record)
    if told := [f"{name}: {remark}" for name, remark in remarks(record) if (name, remark) not in first]:
        parts.append("\n".join(told))
    if made := final_artifacts(record):
        parts.append(f"results in the run folder: {', '.join(made)}")
    return "\n\n".join(parts)


def _headlines(record: RunRecord) -> list[str]:
    """A line for each task in no repetition: `evaluate-detector: AP50 0.912; AP 0.604`."""
    lines: dict[str, list[str]] = {}
    for one in headlines(record):
        lines.setdefault(one.task, []).append(f"{one.label} {numbers([one.value])[0]}")
    return [f"{task}: {'; '.join(values)}" for task, values in lines.items()]


def _table(record: RunRecord, loop: Loop) -> str:
    """A line for each repetition that was started; empty where none was."""
    shown = [i for i, repetition in enumerate(loop.repetitions) if repetition.started]
    if not shown:
        return ""
    header, rows = loop_table(record, loop)
    cells = [header, *(rows[i] for i in shown)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in cells]
    rule = "  ".join("-" * width for width in widths[:-1])
    notes = [f"Selected: {artifact}, from before {loop.name}-0." for artifact in started_from(record, loop)]
    return "\n".join([lines[0], rule, *lines[1:], *notes])


def loop_table(record: RunRecord, loop: Loop) -> tuple[list[str], list[list[str]]]:
    """Header, and a row for each repetition: its name, headline metrics, seconds, and what became of it."""
    found = columns(loop)
    chosen = selected(record, loop)
    values = [numbers(column.values) for column in found]
    rows = [
        [repetition.name, *(column[i] for column in values), f"{repetition.seconds:.1f}", _note(repetition, chosen)]
        for i, repetition in enumerate(loop.repetitions)
    ]
    return ["round", *(column.label for column in found), "seconds", ""], rows


def _note(repetition: Repetition, chosen: list[str]) -> str:
    """What became of a repetition. chosen: names of those that were selected."""
    if repetition.passed_through:
        return "passed through"
    return "selected" if repetition.name in chosen else ""


def _aligned(row: list[str], widths: list[int]) -> list[str]:
    """Cells of equal width: text left, numbers right."""
    first, last = row[0].ljust(widths[0]), row[-1].ljust(widths[-1])
    return [first, *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)), last]
