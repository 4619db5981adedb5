"""Compose what Kubeflow's launcher passes to the container of a task: the executor input and the command."""

import json
from typing import Any

from pipelines.executor.tasks import PreparedTask, as_text, output_path, value_path


def executor_input(prepared: PreparedTask) -> dict[str, Any]:
    """Return the executor input of a task, as JSON."""
    task, folder = prepared.task, prepared.folder
    inputs = {
        name: _artifact(name, given.uri, given.schema_title, given.metadata) for name, given in prepared.inputs.items()
    }
    outputs = {
        name: _artifact(name, str(output_path(task, name, folder)), kind.get("schemaTitle", ""), {})
        for name, kind in task.outputs.items()
    }
    return {
        "inputs": {"parameterValues": prepared.parameters, "artifacts": inputs},
        "outputs": {
            "parameters": {name: {"outputFile": str(value_path(name, folder))} for name in task.values},
            "artifacts": outputs,
            "outputFile": str(folder / "executor_output.json"),
        },
    }


def _artifact(name: str, uri: str, title: str, metadata: dict[str, Any]) -> dict[str, Any]:
    kind = {"schemaTitle": title, "schemaVersion": "0.0.1"}
    return {"artifacts": [{"name": name, "uri": uri, "type": kind, "metadata": metadata}]}


def command(prepared: PreparedTask) -> list[str]:
    """Return the container's command with Kubeflow's placeholders replaced."""
    replacements = _replacements(prepared)
    words = []
    for word in prepared.task.command:
        for placeholder, text in replacements.items():
            word = word.replace(placeholder, text)
        words.append(word)
    return words


def _replacements(prepared: PreparedTask) -> dict[str, str]:
    """Placeholder -> text that replaces it."""
    task, folder = prepared.task, prepared.folder
    found = {"{{$}}": json.dumps(executor_input(prepared))}
    for name, value in prepared.parameters.items():
        found[f"{{{{$.inputs.parameters['{name}']}}}}"] = as_text(value)
    paths = {("inputs", name): given.uri for name, given in prepared.inputs.items()}
    paths |= {("outputs", name): str(output_path(task, name, folder)) for name in task.outputs}
    for (side, name), path in paths.items():
        for ending in ("path", "uri"):
            found[f"{{{{$.{side}.artifacts['{name}'].{ending}}}}}"] = path
    for name in task.values:
        found[f"{{{{$.outputs.parameters['{name}'].output_file}}}}"] = str(value_path(name, folder))
    return found
