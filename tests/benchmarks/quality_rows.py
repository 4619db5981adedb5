"""Rows of the quality table, kept in a file: what was measured with the same code is not measured twice.

The table takes hours, more than one sitting may have: every finished run is kept at once, and says with which code,
when and on which machine it was made.
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
    "extract_features",
    "cluster",
    "refine_masks",
    "train_segmentor",
    "select_model",
    "infer",
)
GRAPH = ("pipelines/graphs/label_free.py", "pipelines/graphs/em.py")


class Row(BaseModel):
    """One configuration's scores on the held-out images of one kind."""

    model_config = ConfigDict(extra="forbid")

    name: str
    """Of the set."""
    variant: str
    seed: str
    kind: str
    """Of images."""
    scores: dict[str, float]
    rounds: list[tuple[float, float]]
    """Dice and F1 of every round that ran, on up to 20 labelled images of both splits."""
    chosen: int | None
    """Number of the round that was handed on."""
    seconds: float
    cores: int = 2
    """How many were used, for so many seconds."""
    version: str = ""
    """Of the code, `version`."""
    date: str = ""
    machine: str = ""

    def is_of(self, name: str, variant: str, seed: str) -> bool:
        """Whether it is of this run."""
        return (self.name, self.variant, self.seed) == (name, variant, seed)


class Kept:
    """Rows in a file, a line of JSON each, sorted. Several threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, Lock()
        lines = path.read_text().splitlines() if path.is_file() else []
        self.rows = [Row.model_validate_json(line) for line in lines]

    def of(self, name: str, variant: str, seed: str) -> list[Row]:
        """Of one run, if it was made with the code as it is."""
        return [row for row in self.current() if row.is_of(name, variant, seed)]

    def current(self) -> list[Row]:
        """Made with the code as it is."""
        now = version()
        return [row for row in self.rows if row.version == now]

    def replace(self, rows: list[Row]) -> None:
        """Keep the rows of one run instead of what was known of it."""
        first = rows[0]
        with self._lock:
            others = [row for row in self.rows if not row.is_of(first.name, first.variant, first.seed)]
            self.rows = sorted([*others, *rows], key=lambda row: (row.name, row.variant, row.seed, row.kind))
            partial = self.path.with_name(f".{self.path.name}.partial")
            partial.write_text("".join(f"{row.model_dump_json()}\n" for row in self.rows))
            partial.replace(self.path)


def dated(rows: Iterable[Row], cores: int) -> list[Row]:
    """The rows with the code's version, today's date, and the machine."""
    known = {"version": version(), "date": date.today().isoformat(), "machine": machine(), "cores": cores}
    return [row.model_copy(update=known) for row in rows]


def version() -> str:
    """Hash of the code that a run's scores may depend on: its stages, and the graph that wires them."""
    digest = hashlib.sha256("".join(code_version(declaration(stage)) for stage in STAGES).encode())
    for path in GRAPH:
        digest.update((ROOT / path).read_bytes())
    return digest.hexdigest()[:12]


def machine() -> str:
    """Its processor, and how many cores it has."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores"
