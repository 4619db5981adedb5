"""Write the files of a Scores artifact."""

import csv
import json
from pathlib import Path
from typing import Any

from components.evaluate.scored_part import ScoredPart
from shared.metrics.tally import NAMES, Tally
from shared.system.names import cells

COLUMNS = ["image", "source", *NAMES, "true_objects", "predicted_objects"]
"""Columns of `scores.csv` by masks."""


def score_row(key: str, source: str, one: Tally) -> dict[str, Any]:
    """Make one line of `scores.csv`; metrics that the truth does not allow are left out."""
    row = {"image": key, "source": source, **one.metrics()}
    if one.instance_images:
        row |= {"true_objects": one.true, "predicted_objects": one.predicted}
    return row


def ranking_score(row: dict[str, Any]) -> float:
    """The number that images are ranked by: F1 where instances are known, else Dice."""
    return float(row.get("f1", row["dice"]))


def write_scores(folder: Path, parts: list[ScoredPart]) -> None:
    """Write `scores.json` with the metrics over all images, and `scores.csv` with a line for each image.

    `scores.csv` has six significant digits. `scores.json` is flagged where the model learned from the labels of
    the images. No part: the files say that nothing was scored.
    """
    rows = merge_rows(parts)
    counts = {"n": len(rows)}
    for part in parts:
        counts |= part.counts
    if not parts:
        counts |= {"true_objects": 0, "predicted_objects": 0}
    overall = {name: value for part in parts for name, value in part.metrics.items()}
    flag = {"scored_on_training_labels": True} if any(part.learned_from for part in parts) else {}
    text = json.dumps({"overall": overall, **counts, **flag}, indent=1, sort_keys=True)
    (folder / "scores.json").write_text(text + "\n", encoding="utf-8")
    columns = dict.fromkeys(column for part in parts for column in part.columns) or dict.fromkeys(COLUMNS)
    with (folder / "scores.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(cells({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()}))


def merge_rows(parts: list[ScoredPart]) -> list[dict[str, Any]]:
    """Join the lines of the parts by image. A single part keeps its order, several are in ascending order of keys."""
    if len(parts) == 1:
        return parts[0].rows
    rows: dict[str, dict[str, Any]] = {}
    for part in parts:
        for row in part.rows:
            rows.setdefault(row["image"], {}).update(row)
    return [rows[key] for key in sorted(rows)]
