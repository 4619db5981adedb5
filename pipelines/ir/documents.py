"""Load the YAML documents of a compiled pipeline, and refuse a file that is not one."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.ir.yaml_file import read_yaml
from shared.system.errors import UsageError, UserError


def load_documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (pipeline specification, Kubernetes settings). Raises UsageError for a file that is no such pair."""
    found = read_yaml(path, str(path))
    spec: dict[str, Any] = found[0] if found and isinstance(found[0], dict) else {}
    info, root, deployment = (spec.get(part) for part in ("pipelineInfo", "root", "deploymentSpec"))
    named = isinstance(info, dict) and isinstance(info.get("name"), str)
    if not named or not isinstance(root, dict) or not isinstance(deployment, dict):
        problem = "a workflow of Kubeflow Pipelines v1" if spec.get("kind") == "Workflow" else "not a compiled pipeline"
        raise UsageError(f"{path}: {problem}; `cytoloom compile NAME -o {path.name}` writes one of version 2")
    return spec, found[1] if len(found) > 1 and isinstance(found[1], dict) else {}


def task_settings(platform: dict[str, Any]) -> dict[str, Any]:
    """Return executor label -> Kubernetes settings of its tasks. platform: second document of a compiled pipeline."""
    kubernetes = platform.get("platforms", {}).get("kubernetes", {})
    settings: dict[str, Any] = kubernetes.get("deploymentSpec", {}).get("executors", {})
    return settings


@contextlib.contextmanager
def refuse_malformed(path: Path) -> Iterator[None]:
    """Raise UserError if the pipeline read inside does not have the structure that Kubeflow's compiler writes."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: not written by Kubeflow's compiler, or damaged ({reason}); compile again") from error
