"""Read the invocation of a stage from the executor input that Kubeflow passes to its container."""

import json
from pathlib import Path
from typing import Any

from shared.stage.declaration import Stage
from shared.stage.invocation import Invocation
from shared.stage.wire import plain_type
from shared.system.errors import UserError

_MOUNTS = (("s3://", "/s3/"), ("minio://", "/minio/"), ("gs://", "/gcs/"))
"""Scheme of a uri -> folder where Kubeflow's launcher mounts it."""


def from_executor_input(stage: type[Stage], text: str) -> Invocation:
    """Parse Kubeflow's executor input, a JSON text. Uris become the paths at which the launcher mounts them."""
    try:
        given = json.loads(text)
        inputs, outputs = given.get("inputs", {}), given.get("outputs", {})
        read = {name: item["artifacts"][0] for name, item in inputs.get("artifacts", {}).items()}
        written = {name: item["artifacts"][0] for name, item in outputs.get("artifacts", {}).items()}
        locations = {name: _mounted(artifact) for name, artifact in {**read, **written}.items()}
        locations |= {name: item["outputFile"] for name, item in outputs.get("parameters", {}).items()}
        parameters = dict(inputs.get("parameterValues", {}))
    except (ValueError, AttributeError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise UserError(
            f"--executor-input: not what Kubeflow writes ({type(error).__name__}: {error}); "
            "by hand, give the inputs and outputs as arguments"
        ) from error
    output_file = outputs.get("outputFile")
    return Invocation(
        stage,
        locations,
        _whole_numbers(stage, parameters),
        overwrite=True,
        executor_output=Path(output_file) if output_file else None,
        uris={name: artifact["uri"] for name, artifact in written.items()},
        names={name: artifact.get("name", name) for name, artifact in written.items()},
    )


def _whole_numbers(stage: type[Stage], parameters: dict[str, Any]) -> dict[str, Any]:
    """Replace 3.0 by 3 where the field is an integer: JSON from Kubeflow holds floats."""
    for name, info in stage.parameters().items():
        value = parameters.get(name)
        if plain_type(info) is int and isinstance(value, float) and value.is_integer():
            parameters[name] = int(value)
    return parameters


def _mounted(artifact: dict[str, Any]) -> str:
    """Return the local path of an artifact in a container: the launcher mounts `s3://b/k` at `/s3/b/k`."""
    if path := artifact.get("customPath"):
        return path
    uri: str = artifact["uri"]
    for scheme, mount in _MOUNTS:
        if uri.startswith(scheme):
            return mount + uri.removeprefix(scheme)
    return uri
