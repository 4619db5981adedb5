"""Write the small outputs of a task: its page, metrics, output parameters, and the file that Kubeflow reads."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.artifacts.kinds import ClassificationMetrics, Metrics
from shared.artifacts.manifest import Manifest
from shared.stage.declaration import Port, Result
from shared.stage.execution.places import is_remote
from shared.stage.invocation import Invocation
from shared.system.log import log


def small_files(invocation: Invocation, result: Result) -> dict[str, str]:
    """Return path or uri -> text of the page, the metrics and the output parameters that have a location."""
    return {
        invocation.locations[name]: _text(invocation, name, port, result)
        for name, port in invocation.stage.ports("out").items()
        if not port.is_artifact and name in invocation.locations
    }


def _text(invocation: Invocation, name: str, port: Port, result: Result) -> str:
    if port.is_value:
        value = result.values[name]
        return value if isinstance(value, str) else json.dumps(value)
    if port.kind is Metrics:
        return json.dumps(result.metrics, sort_keys=True)
    if port.kind is ClassificationMetrics:
        return result.classification.model_dump_json() if result.classification else "null"
    html: str = result.page.html() if result.page else f"<p>{invocation.stage.slug()}: nothing to show</p>"
    return html


def report_back(
    invocation: Invocation,
    result: Result,
    sealed: Mapping[str, Manifest],
    counts: Mapping[str, int],
    small: Mapping[str, str],
) -> None:
    """Log digests and metrics, send small files to the store, and write `executor_output.json` for Kubeflow.

    counts: output -> number of images, for those outputs that are sets; small: as of `small_files`.
    """
    for location, text in small.items():
        if is_remote(location):
            from shared import store

            store.put(location, text.encode())
    for name, manifest in sealed.items():
        log.info("%s: %s %s", name, manifest.digest[:16], invocation.locations[name])
    for name, number in result.metrics.items():
        log.info("%s = %.6g", name, number)
    if invocation.executor_output is not None:
        text = json.dumps(_executor_output(invocation, result, sealed, counts))
        partial, path = write_beside(str(invocation.executor_output), text)
        partial.replace(path)


def _executor_output(
    invocation: Invocation, result: Result, sealed: Mapping[str, Manifest], counts: Mapping[str, int]
) -> dict[str, Any]:
    """Return the contents of `executor_output.json`."""
    ports = invocation.stage.ports("out")

    def metadata(name: str) -> dict[str, Any]:
        count = {"images": counts[name]} if name in counts else {}
        return _metadata(ports[name].kind, result, sealed.get(name)) | count

    artifacts = {
        name: {"artifacts": [{"name": invocation.names[name], "uri": uri, "metadata": metadata(name)}]}
        for name, uri in invocation.uris.items()
    }
    return {"parameterValues": result.values, "artifacts": artifacts}


def _metadata(kind: type, result: Result, manifest: Manifest | None) -> dict[str, Any]:
    """Return what Kubeflow's UI shows beside an artifact: its kind, its origin, and the stage's metrics."""
    if kind is Metrics:
        return dict(result.metrics)
    if kind is ClassificationMetrics and result.classification:
        return result.classification.metadata()
    if manifest is None:
        return {}
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
    """Write a small file beside its place; returns (where it is, where it belongs)."""
    path = Path(location)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    return partial, path
