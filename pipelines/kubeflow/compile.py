"""Compile a graph into a Kubeflow pipeline YAML, and refuse one that a cluster could not run."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.kubeflow.lint import lint
from shared.system.errors import UserError


def compile_graph(name: str, build: Callable[[Config], Any], config: Config, target: Path) -> None:
    """Compile what `build` returns into `target`. Raises UserError for an unused setting or a finding of the linter.

    Without a profile, the graph is for one machine, which has no limit to the size of a run.
    """
    from kfp import compiler

    pipeline = build(config)
    config.refuse_unused(name)
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(compiled))
        refuse_findings(compiled, str(target), on_cluster=config.profile is not None)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(compiled, target)


def refuse_findings(compiled: Path, shown: str, *, on_cluster: bool = True) -> None:
    """Raise UserError with every finding of the linter in a compiled pipeline. shown: what to call the file."""
    if findings := [finding for finding in lint(compiled, shown) if on_cluster or finding.rule != "size"]:
        raise UserError("\n".join([f"{shown}: a cluster cannot run this graph:", *map(str, findings)]))
