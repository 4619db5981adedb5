"""What a task says when it is done: its page, metrics and output parameters, and what Kubeflow reads."""

import json
from pathlib import Path
from typing import Any

from shared.artifacts.kinds import ClassificationMetrics, Metrics
from shared.artifacts.manifest import Manifest
from shared.stage.arguments import Task
from shared.stage.declaration import Result
from shared.system.log import log


def small_files(task: Task, result: Result) -> dict[str, str]:
    """Path or uri -> text, of the page, metrics and the like, and of the output parameters, that were asked for."""
    files = {}
    for name, port in task.stage.ports("out").items():
        if port.is_artifact or name not in task.locations:
            continue
        if port.is_value:
            value = result.values[name]
            text = value if isinstance(value, str) else json.dumps(value)
        elif port.kind is Metrics:
            text = json.dumps(result.metrics, sort_keys=True)
        elif port.kind is ClassificationMetrics:
            text = result.classification.model_dump_json() if result.classification else "null"
        else:
            text = result.page.html() if result.page else f"<p>{task.stage.slug()}: nothing to show</p>"
        files[task.locations[name]] = text
    return files


def report_back(
    task: Task, result: Result, sealed: dict[str, Manifest], counts: dict[str, int], small: dict[str, str]
) -> None:
    """Log what came out, send small files to the store, and write what Kubeflow reads.

    counts: output -> number of images, of the sets among them.
    """
    for location, text in small.items():
        if "://" in location:
            from shared import store

            store.put(location, text.encode())
    for name, manifest in sealed.items():
        log.info("%s: %s %s", name, manifest.digest[:16], task.locations[name])
    for name, number in result.metrics.items():
        log.info("%s = %.6g", name, number)
    if task.executor_output is None:
        return
    ports = task.stage.ports("out")

    def metadata(name: str) -> dict[str, Any]:
        count = {"images": counts[name]} if name in counts else {}
        return _metadata(name, ports[name].kind, result, sealed) | count

    artifacts = {
        name: {"artifacts": [{"name": task.names[name], "uri": uri, "metadata": metadata(name)}]}
        for name, uri in task.uris.items()
    }
    output = {"parameterValues": result.values, "artifacts": artifacts}
    partial, path = write_beside(str(task.executor_output), json.dumps(output))
    partial.replace(path)


def _metadata(name: str, kind: type, result: Result, sealed: dict[str, Manifest]) -> dict[str, Any]:
    """What Kubeflow's UI shows beside an artifact: what it is, where it comes from, and how good it is."""
    if kind is Metrics:
        return dict(result.metrics)
    if kind is ClassificationMetrics and result.classification:
        return result.classification.metadata()
    if name not in sealed:
        return {}
    manifest = sealed[name]
    return dict(result.metrics) | {
        "type": manifest.type,
        "digest": manifest.digest,
        "skipped": manifest.skipped or "",
        "remark": result.remark,
        "stage": manifest.stage,
        "code_version": manifest.code_version,
        "files": len(manifest.files),
        "megabytes": round(sum(file.size for file in manifest.files.values()) / 1e6, 3),
    }


def write_beside(location: str, text: str) -> tuple[Path, Path]:
    """Write a small file beside its place; returns where it is and where it belongs."""
    path = Path(location)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    return partial, path
