"""Keep the rows of the quality table in a file, so that a run is not repeated with the same code.

The whole table takes hours. Every finished run is kept at once, with its code version, date and machine.
"""

import hashlib
import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from threading import Lock

from pydantic import BaseModel, ConfigDict

from components.registry import declaration
from shared.stage.version import ROOT, code_version

STAGES = (
    "ingest",
    "pretrain",
    "sample_images",
    "extract_features",
    "cluster",
    "refine_masks",
    "train_segmentor",
    "select_model",
    "evaluate",
    "infer",
)
"""Stages that the scores depend on."""
GRAPH = ("pipelines/graphs/label_free.py", "pipelines/graphs/em.py")


class Row(BaseModel):
    """Scores of one configuration on the held-out images of one kind."""

    model_config = ConfigDict(extra="forbid")

    name: str
    """Set of images."""
    variant: str
    seed: str
    kind: str
    """Kind of the scored images."""
    scores: dict[str, float]
    rounds: list[tuple[float, float]]
    """Dice and F1 of every round, on up to 20 labelled images of both splits."""
    chosen: int | None
    """Number of the selected round."""
    seconds: float
    cores: int = 2
    """Number of cores used."""
    version: str = ""
    """Version of the code, see `version`."""
    date: str = ""
    machine: str = ""

    def is_of(self, name: str, variant: str, seed: str) -> bool:
        """Whether the row belongs to this run."""
        return (self.name, self.variant, self.seed) == (name, variant, seed)


class Kept:
    """Rows in a file, one line of JSON each, sorted: the newest ones of each run. Several threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, Lock()
        lines = path.read_text().splitlines() if path.is_file() else []
        self.rows = [Row.model_validate_json(line) for line in lines]

    def of(self, name: str, variant: str, seed: str) -> list[Row]:
        """Rows of one run, if the present code made them."""
        return [row for row in self.current() if row.is_of(name, variant, seed)]

    def current(self) -> list[Row]:
        """Rows that the present code made."""
        now = version()
        return [row for row in self.rows if row.version == now]

    def replace(self, rows: list[Row]) -> None:
        """Keep the rows of one run in place of earlier ones."""
        first = rows[0]
        with self._lock:
            others = [row for row in self.rows if not row.is_of(first.name, first.variant, first.seed)]
            self.rows = sorted([*others, *rows], key=lambda row: (row.name, row.variant, row.seed, row.kind))
            partial = self.path.with_name(f".{self.path.name}.partial")
            partial.write_text("".join(f"{row.model_dump_json()}\n" for row in self.rows))
            partial.replace(self.path)


def dated(rows: Iterable[Row], cores: int) -> list[Row]:
    """Add the code version, today's date, the machine and the number of cores to rows."""
    known = {"version": version(), "date": date.today().isoformat(), "machine": machine(), "cores": cores}
    return [row.model_copy(update=known) for row in rows]


def version() -> str:
    """Hash of the code that scores depend on: the stages with all they import, and the graphs that wire them."""
    digest = hashlib.sha256("".join(code_version(declaration(stage)) for stage in STAGES).encode())
    for path in GRAPH:
        digest.update((ROOT / path).read_bytes())
    return digest.hexdigest()[:12]


def machine() -> str:
    """Name of the processor and number of its cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores"
