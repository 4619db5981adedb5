"""List the images that have no prediction: files that could not be read, and images that a model failed on."""

import csv
from pathlib import Path

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
        rows = [(row["source"], row["reason"]) for row in csv.DictReader(stream)]
    return [(source, reason) for source, reason in rows if not reason.startswith(_LABEL)]


def write_failures(folder: Path, failures: list[tuple[str, str]]) -> None:
    """Write `failures.csv` with (source, reason) of each; no file where there is none."""
    if not failures:
        return
    with (folder / FAILURES_FILE).open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["source", "reason"])
        table.writerows(sorted(failures))
