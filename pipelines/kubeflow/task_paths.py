"""Find what the tasks of a compiled pipeline are called: on a cluster, and by `cytoloom run`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.ir.documents import load_documents, refuse_malformed


def task_paths(path: Path) -> dict[str, str]:
    """Return name of each task on a cluster -> its path: `em-0-cluster` -> `em-0/cluster`. Nested pipelines are tasks.

    The linter refuses a graph in which two tasks have the same name. Raises UserError if the file is not a compiled
    pipeline.
    """
    spec, _ = load_documents(path)
    with refuse_malformed(path):
        return dict(_paths(spec["root"]["dag"], spec.get("components", {}), ""))


def _paths(dag: dict[str, Any], components: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, task in dag["tasks"].items():
        found = prefix + (task.get("taskInfo", {}).get("name") or key)
        yield key, found
        component = components[task["componentRef"]["name"]]
        if "dag" in component:
            yield from _paths(component["dag"], components, f"{found}/")
