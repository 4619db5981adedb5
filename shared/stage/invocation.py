"""Describe one call of a stage, however it was started."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.stage.declaration import Stage


@dataclass
class Invocation:
    """One call of a stage: places of inputs and outputs, parameters, and the way to report back to Kubeflow."""

    stage: type[Stage]
    locations: dict[str, str]
    """Port -> path or uri; optional ports may be absent."""
    parameters: dict[str, Any]
    """Parameter -> value, not validated yet; those with a default may be absent."""
    overwrite: bool = False
    """Replace finished outputs."""
    executor_output: Path | None = None
    """File for `executor_output.json`, when Kubeflow or the local executor started the stage."""
    uris: dict[str, str] = field(default_factory=dict)
    """Output port -> uri that Kubeflow uses."""
    names: dict[str, str] = field(default_factory=dict)
    """Output port -> name that Kubeflow uses for the artifact."""
