"""The whole graphs by name, and how one is compiled."""

import ast
import importlib
import shutil
import tempfile
from pathlib import Path

from pipelines.config import Config
from pipelines.kubeflow.lint import lint
from shared.system.errors import UserError
from shared.system.suggestions import alternatives

GRAPHS = ("label_free",)
"""Modules of `pipelines.graphs` that have `build(config) -> pipeline`."""


def summary(name: str) -> str:
    """First line of the module's docstring, read without importing it: kfp takes most of a second."""
    source = (Path(__file__).parents[1] / "graphs" / f"{name}.py").read_text()
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


def compile_graph(name: str, config: Config, target: Path) -> None:
    """Compile a graph by name into a Kubeflow pipeline YAML. Raises UserError for an unknown name or setting."""
    if name not in GRAPHS:
        raise UserError(f"{name}: no such pipeline{alternatives(name, GRAPHS)}")
    module = importlib.import_module(f"pipelines.graphs.{name}")
    from kfp import compiler

    pipeline = module.build(config)
    config.refuse_unused(name)
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(compiled))
        errors = [str(finding) for finding in lint(compiled, shown=str(target))]
        if errors:
            raise UserError("\n".join(["the compiled graph is not fit for a cluster:", *errors]))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(compiled, target)
