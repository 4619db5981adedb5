"""`cytoloom run` of a graph on one source, with a run folder, a cache and settings of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipelines.run_folder import record
from shared.artifacts.manifest import is_artifact

ROOT = Path(__file__).parents[2]


class GraphRun:
    """The command line; `folder/source` is the source, `folder/run` the run folder."""

    def __init__(self, folder: Path, graph: str, config: dict[str, Any]) -> None:
        self.folder, self.graph, self.source, self.out = folder, graph, folder / "source", folder / "run"
        self.config = folder / "run.yaml"
        self.config.write_text(json.dumps(config))
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("CYTOLOOM_")}
        self.env |= {"CYTOLOOM_CACHE": str(folder / "cache"), "CYTOLOOM_THREADS": "1", "CYTOLOOM_DEVICE": "cpu"}

    def words(self, *more: object) -> list[str]:
        command = [sys.executable, "-m", "pipelines", "run", self.graph, "--source", self.source, "--out", self.out]
        return [str(word) for word in (*command, "--config", self.config, *more)]

    def __call__(self, *more: object) -> subprocess.CompletedProcess:
        return subprocess.run(self.words(*more), cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=1200)

    def tasks(self) -> dict[str, record.TaskRecord]:
        return record.load(self.out).tasks

    def origins(self) -> dict[str, str]:
        return {name: task.origin for name, task in self.tasks().items()}

    def digests(self) -> dict[str, str]:
        return {
            f"{name}/{key}": made.digest
            for name, task in self.tasks().items()
            for key, made in task.outputs.items()
            if is_artifact(self.out / made.path)
        }
