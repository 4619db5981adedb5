"""The files of a Scores artifact."""

import csv
import json
from pathlib import Path
from typing import Any

from shared.metrics.tally import NAMES, Tally

COLUMNS = ["image", "source", *NAMES, "true_objects", "predicted_objects"]


def score_row(key: str, source: str, one: Tally) -> dict[str, Any]:
    """One line of `scores.csv`; what the truth cannot tell is left out."""
    row = {"image": key, "source": source, **one.metrics()}
    if one.instance_images:
        row |= {"true_objects": one.true, "predicted_objects": one.predicted}
    return row


def score_of(row: dict[str, Any]) -> float:
    """What images are ranked by: F1 where instances are known, else Dice."""
    return float(row.get("f1", row["dice"]))


def write_scores(folder: Path, total: Tally, rows: list[dict[str, Any]], on_training_labels: bool = False) -> None:
    """`scores.json`: metrics over all images; `scores.csv`: a line for each, six significant digits.

    on_training_labels: the model learned from the labels of these images; scores.json says so.
    """
    overall = total.metrics() if total.images else {}
    counts = {"n": total.images, "true_objects": total.true, "predicted_objects": total.predicted}
    flag = {"scored_on_training_labels": True} if on_training_labels else {}
    text = json.dumps({"overall": overall, **counts, **flag}, indent=1, sort_keys=True)
    (folder / "scores.json").write_text(text + "\n", encoding="utf-8")
    with (folder / "scores.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})
