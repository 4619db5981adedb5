"""The lines that `quality.py` prints: one for each run, and what the runs say together."""

from pathlib import Path

import numpy as np
from quality_rows import Row

COLUMNS = ("dice", "f1", "ap50", "seg")
NO_EM = "no EM"
"""Variant that is the set's own first proposal, nothing learned."""
MIXED = "mixed"
"""Set whose images are of several kinds; each kind is the name of a set of its own."""
POINT = 0.01
"""Of Dice."""
BEGIN, END = "<!-- what `make quality` writes -->", "<!-- to here -->"
Group = tuple[str, str, str]
"""Set, variant, kind of images: runs that differ in their seed alone."""


def text(row: Row) -> str:
    """The row's line of the table."""
    scores = [f"{row.scores[column]:.3f}" for column in COLUMNS]
    reached = "; ".join(f"{dice:.3f}, {f1:.3f}" for dice, f1 in row.rounds)
    chosen = "" if row.chosen is None else f"em-{row.chosen}"
    minutes = f"{row.seconds * row.cores / 60:.1f}"
    return line(row.name, row.variant, row.seed, row.kind, *scores, reached, chosen, minutes, row.date)


def line(*cells: str) -> str:
    """Cells as a line of a table."""
    return f"| {' | '.join(cells)} |"


def head() -> str:
    """What stands above the rows' lines."""
    cells = ("set", "variant", "seed", "images of", *COLUMNS, "rounds (Dice, F1)", "handed on", "core minutes", "date")
    return line(*cells) + "\n" + "|---" * len(cells) + "|"


def summary(found: list[Row]) -> str:
    """Mean and standard deviation over the seeds, and whether what must hold does: see `_against` and `_choices`."""
    groups: dict[Group, list[Row]] = {}
    for row in found:
        groups.setdefault((row.name, row.variant, row.kind), []).append(row)
    dice = {group: float(np.mean([row.scores["dice"] for row in rows])) for group, rows in groups.items()}
    cells = ("set", "variant", "images of", "seeds", *COLUMNS, "Dice to proposal", "Dice to kind alone", "core minutes")
    lines = ["", line(*cells), "|---" * len(cells) + "|"]
    for group, rows in groups.items():
        values = [[row.scores[column] for row in rows] for column in COLUMNS]
        scores = [f"{np.mean(of):.3f} ± {np.std(of):.3f}" for of in values]
        apart = ["" if gain is None else f"{gain:+.3f}" for gain in _against(group, dice)]
        minutes = np.mean([row.seconds * row.cores / 60 for row in rows])
        lines.append(line(*group, str(len(rows)), *scores, *apart, f"{minutes:.1f}"))
    return "\n".join([*lines, *_proposals(dice), *_choices(found)])


def insert(page: Path, rows: list[Row]) -> None:
    """Put the table of these rows where it belongs in a page, between `BEGIN` and `END`; without a place, nowhere."""
    before, found, rest = page.read_text().partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed and rows):
        return
    made = f"Code {rows[0].version}; {'; '.join(sorted({row.machine for row in rows}))}."
    table = "\n".join([head(), *map(text, rows)])
    page.write_text(f"{before}{BEGIN}\n{made}\n\n{table}\n{summary(rows)}\n{END}{after}")


def _against(group: Group, dice: dict[Group, float]) -> tuple[float | None, float | None]:
    """Dice less that of the set's own first proposal, and of the mixed set less that of the kind alone.

    None where the other one was not run.
    """
    name, variant, kind = group
    proposal = None if variant == NO_EM else dice.get((name, NO_EM, kind))
    alone = dice.get((kind, variant, kind)) if name == MIXED else None
    own = dice[group]
    return None if proposal is None else own - proposal, None if alone is None else own - alone


def _proposals(dice: dict[Group, float]) -> list[str]:
    """Which configurations end more than a point of Dice below their set's own first proposal."""
    gains = {group: gain for group in dice if (gain := _against(group, dice)[0]) is not None}
    if not gains:
        return []
    below = [f"{', '.join(group)}: {gain:+.3f}" for group, gain in gains.items() if gain < -POINT]
    return [f"\nMore than a point of Dice below the set's own first proposal: {len(below)} of {len(gains)}.", *below]


def _choices(found: list[Row]) -> list[str]:
    """How often the round that was handed on was the best one, and which runs handed on another."""
    judged = {(row.name, row.variant, row.seed): row for row in found if row.chosen is not None and row.rounds}
    if not judged:
        return []
    wrong = []
    for (name, variant, seed), row in judged.items():
        best = max(range(len(row.rounds)), key=lambda number: row.rounds[number][0])
        taken = row.chosen or 0
        if row.rounds[best][0] - row.rounds[taken][0] > POINT:
            rounds = f"em-{taken} ({row.rounds[taken][0]:.3f}) instead of em-{best} ({row.rounds[best][0]:.3f})"
            wrong.append(f"{name}, {variant}, seed {seed}: {rounds}")
    right = len(judged) - len(wrong)
    lines = [f"\nHanded on the best round, or one within a point of its Dice: {right} of {len(judged)} runs."]
    return [*lines, "The others:", *wrong] if wrong else lines
