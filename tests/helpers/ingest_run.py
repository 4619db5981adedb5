"""Run `ingest` on a folder, and read what it wrote."""

import csv
import os
import shutil
from pathlib import Path

import pytest

from components.ingest.component import Ingest
from components.ingest.main import run
from shared.artifacts.image_set import ImageReader
from shared.artifacts.kinds import ImageSet, LabelSet
from shared.artifacts.label_set import LabelReader
from shared.artifacts.manifest import seal
from shared.stage.declaration import Result

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CYTOLOOM_DATA") or ROOT.parent / "shared/data")


def real(folder: str) -> Path:
    if not (DATA / folder).is_dir():
        pytest.skip(f"{DATA / folder}: real images are not here; CYTOLOOM_DATA names their folder")
    return DATA / folder


class Outcome:
    """Result of a run, with readers and digests of its artifacts."""

    def __init__(self, result: Result, out: Path) -> None:
        self.result, self.out = result, out
        kinds = {"images": ImageSet, "labels": LabelSet, "no_labels": LabelSet}
        self.digests = {name: seal(out / name, kind, stage="ingest").digest for name, kind in kinds.items()}
        self.images, self.labels = ImageReader(out / "images"), LabelReader(out / "labels")
        with (out / "images/rejects.csv").open(newline="") as stream:
            self.rejects = {row["source"]: row["reason"] for row in csv.DictReader(stream)}

    def sources(self) -> dict[str, str]:
        return {entry.source: entry.key for entry in self.images.entries.values()}


def ingest(source: Path | str, out: Path, **parameters: object) -> Outcome:
    places = {name: out / name for name in ("images", "labels", "no_labels")}
    for place in places.values():
        place.mkdir(parents=True)
    return Outcome(run(Ingest(source=str(source), **places, **parameters)), out)


def some(source: Path, folder: Path, *patterns: str) -> Path:
    """Copy the matching files of a folder."""
    folder.mkdir(parents=True)
    for pattern in patterns:
        found = sorted(source.glob(pattern))
        assert found, pattern
        for path in found:
            shutil.copy(path, folder)
    return folder
