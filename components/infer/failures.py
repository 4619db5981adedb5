"""List images with a reason, such as those without a prediction: not readable, or a model failed on them."""

import csv
from collections.abc import Sequence
from pathlib import Path

from shared.system.names import cell, from_cell

FAILURES_FILE = "failures.csv"
_REJECTS_FILE = "rejects.csv"
"""Of the ImageSet, see `ingest`."""
_LABEL = "label: "
"""Beginning of the reason of what is no image."""


def rejected_files(images: Path) -> list[tuple[str, str]]:
    """Return (source, reason) of the image files that `ingest` left out of the set."""
    path = images / _REJECTS_FILE
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        rows = [(from_cell(row["source"]), from_cell(row["reason"])) for row in csv.DictReader(stream)]
    return [(source, reason) for source, reason in rows if not reason.startswith(_LABEL)]


def write_reasons(path: Path, found: Sequence[tuple[str, str]]) -> None:
    """Write a CSV file with (source, reason) of each image; no file where there is none."""
    if not found:
        return
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["source", "reason"])
        table.writerows((cell(source), cell(reason)) for source, reason in found)
