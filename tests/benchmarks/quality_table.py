"""Format what `quality.py` prints: a line for each run, and a summary of all runs."""

from pathlib import Path

import numpy as np
from quality_rows import Row

COLUMNS = ("dice", "f1", "ap50", "seg")
NO_EM = "no EM"
"""Variant without training: the first proposal of the set."""
MIXED = "mixed"
"""Set with several kinds of images; each kind is also the name of a set."""
POINT = 0.01
"""One point of Dice."""
BEGIN, END = "<!-- what `make quality` writes -->", "<!-- to here -->"
Group = tuple[str, str, str]
"""Set, variant and kind of images of runs that differ only in their seed."""


def text(row: Row) -> str:
    """Format a row as a line of the table."""
    scores = [f"{row.scores[column]:.3f}" if column in row.scores else "" for column in COLUMNS]
    reached = "; ".join(f"{dice:.3f}, {f1:.3f}" for dice, f1 in row.rounds)
    chosen = "" if row.chosen is None else f"em-{row.chosen}"
    minutes = f"{row.seconds * row.cores / 60:.1f}"
    return line(row.name, row.variant, row.seed, row.kind, *scores, reached, chosen, minutes, row.date, row.version)


def line(*cells: str) -> str:
    """Format cells as a line of a table."""
    return f"| {' | '.join(cells)} |"


def head() -> str:
    """Return the head of the table of rows."""
    runs, results = ("set", "variant", "seed", "images of"), ("rounds (Dice, F1)", "selected", "core minutes")
    cells = (*runs, *COLUMNS, *results, "date", "code")
    return line(*cells) + "\n" + "|---" * len(cells) + "|"


def summary(found: list[Row]) -> str:
    """Mean and standard deviation over the seeds, compared with the proposals (`_against`), and the selected rounds."""
    groups: dict[Group, list[Row]] = {}
    for row in found:
        groups.setdefault((row.name, row.variant, row.kind), []).append(row)
    scored = {group: rows for group, rows in groups.items() if all("dice" in row.scores for row in rows)}
    dice = {group: float(np.mean([row.scores["dice"] for row in rows])) for group, rows in scored.items()}
    cells = ("set", "variant", "images of", "seeds", *COLUMNS, "Dice to proposal", "Dice to kind alone", "core minutes")
    lines = ["", line(*cells), "|---" * len(cells) + "|"]
    for group, rows in groups.items():
        values = [[row.scores[column] for row in rows if column in row.scores] for column in COLUMNS]
        scores = [f"{np.mean(column):.3f} ± {np.std(column):.3f}" if column else "" for column in values]
        gains = ["" if gain is None else f"{gain:+.3f}" for gain in _against(group, dice)]
        minutes = np.mean([row.seconds * row.cores / 60 for row in rows])
        lines.append(line(*group, str(len(rows)), *scores, *gains, f"{minutes:.1f}"))
    return "\n".join([*lines, *_below_proposal(dice), *_selections(found)])


def insert(page: Path, rows: list[Row]) -> None:
    """Replace what is between `BEGIN` and `END` in a page by the table of these rows; a page without both stays."""
    before, found, rest = page.read_text().partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed and rows):
        return
    made = f"{'; '.join(sorted({row.machine for row in rows}))}."
    table = "\n".join([head(), *map(text, rows)])
    page.write_text(f"{before}{BEGIN}\n{made}\n\n{table}\n{summary(rows)}\n{END}{after}")


def _against(group: Group, dice: dict[Group, float]) -> tuple[float | None, float | None]:
    """Gain in Dice over the first proposal of the set and, for the mixed set, over the set of that kind alone.

    None where the other one was not run, or the set has boxes as truth.
    """
    if group not in dice:
        return None, None
    name, variant, kind = group
    proposal = None if variant == NO_EM else dice.get((name, NO_EM, kind))
    alone = dice.get((kind, variant, kind)) if name == MIXED else None
    own = dice[group]
    return None if proposal is None else own - proposal, None if alone is None else own - alone


def _below_proposal(dice: dict[Group, float]) -> list[str]:
    """List the configurations that end more than a point of Dice below the first proposal of their set."""
    gains = {group: gain for group in dice if (gain := _against(group, dice)[0]) is not None}
    if not gains:
        return []
    below = [f"{', '.join(group)}: {gain:+.3f}" for group, gain in gains.items() if gain < -POINT]
    return [f"\nMore than a point of Dice below the first proposal of the set: {len(below)} of {len(gains)}.", *below]


def _selections(found: list[Row]) -> list[str]:
    """Count the runs that selected their best round, and list the others."""
    runs = {(row.name, row.variant, row.seed): row for row in found if row.chosen is not None and row.rounds}
    if not runs:
        return []
    wrong = []
    for (name, variant, seed), row in runs.items():
        best = max(range(len(row.rounds)), key=lambda number: row.rounds[number][0])
        taken = row.chosen or 0
        if row.rounds[best][0] - row.rounds[taken][0] > POINT:
            rounds = f"em-{taken} ({row.rounds[taken][0]:.3f}) instead of em-{best} ({row.rounds[best][0]:.3f})"
            wrong.append(f"{name}, {variant}, seed {seed}: {rounds}")
    right = len(runs) - len(wrong)
    lines = [f"\nSelected the best round, or one within a point of its Dice: {right} of {len(runs)} runs."]
    return [*lines, "The others:", *wrong] if wrong else lines
