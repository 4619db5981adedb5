"""The graphs by name. A graph's module states which stage feeds which: `build(config) -> pipeline`.

This module imports no graph, and so no kfp, until one is loaded: `cytoloom list` stays fast.
"""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.config import Config
from shared.system.errors import UserError
from shared.system.suggestions import alternatives

Build = Callable[[Config], Any]
"""Builds the pipeline of a graph with the settings fixed in it."""
GRAPHS = ("label_free", "instances", "classifier", "detector", "full", "infer")
"""Names of the graphs, which are their modules'."""
PRESETS = Path(__file__).parent / "presets"
"""Folder of config files for `--config`, with the cost and the result of each in its header."""


def load_graph(name: str) -> Build:
    """Import a graph and return its `build`. Raises UserError for an unknown name."""
    if name not in GRAPHS:
        raise UserError(f"{name}: no such pipeline{alternatives(name, GRAPHS)}")
    build: Build = importlib.import_module(f"{__name__}.{name}").build
    return build


def summary(name: str) -> str:
    """Return the first line of the graph's docstring without importing it; kfp takes most of a second."""
    source = (Path(__file__).parent / f"{name}.py").read_text()
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
