"""Write the files of a Scores artifact."""

import csv
import json
from pathlib import Path
from typing import Any

from shared.metrics.tally import NAMES, Tally

_COLUMNS = ["image", "source", *NAMES, "true_objects", "predicted_objects"]
"""Columns of `scores.csv`."""


def score_row(key: str, source: str, one: Tally) -> dict[str, Any]:
    """Make one line of `scores.csv`; metrics that the truth does not allow are left out."""
    row = {"image": key, "source": source, **one.metrics()}
    if one.instance_images:
        row |= {"true_objects": one.true, "predicted_objects": one.predicted}
    return row


def ranking_score(row: dict[str, Any]) -> float:
    """The number that images are ranked by: F1 where instances are known, else Dice."""
    return float(row.get("f1", row["dice"]))


def write_scores(folder: Path, total: Tally, rows: list[dict[str, Any]], on_training_labels: bool = False) -> None:
    """Write `scores.json` with the metrics over all images, and `scores.csv` with a line for each image.

    `scores.csv` has six significant digits. on_training_labels: the model learned from the labels of these images;
    `scores.json` is flagged.
    """
    overall = total.metrics() if total.images else {}
    counts = {"n": total.images, "true_objects": total.true, "predicted_objects": total.predicted}
    flag = {"scored_on_training_labels": True} if on_training_labels else {}
    text = json.dumps({"overall": overall, **counts, **flag}, indent=1, sort_keys=True)
    (folder / "scores.json").write_text(text + "\n", encoding="utf-8")
    with (folder / "scores.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, _COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})
