"""Rule for tasks that run a stage: the graph matches the declaration in this version of the code."""

from typing import Any

from components.registry import declaration, names
from pipelines.kubeflow.lint.finding import Problems


def stage_problems(container: dict[str, Any], component: dict[str, Any]) -> Problems:
    """Check that the stage exists, knows each input of the task, and gets each required parameter."""
    command = container.get("command", [])
    if command[:3] != ["python", "-m", "components"] or len(command) < 4:
        return
    if command[3] not in names():
        yield "stage", f"there is no stage {command[3]!r} in this version; compile the graph again"
        return
    declared = declaration(command[3])
    inputs = component.get("inputDefinitions", {})
    for name in [*inputs.get("parameters", {}), *inputs.get("artifacts", {})]:
        if name not in declared.model_fields:
            yield "unknown-parameter", f"{command[3]} has no {name!r} in this version; compile the graph again"
    for name, field in declared.parameters().items():
        if field.is_required() and name not in inputs.get("parameters", {}):
            yield "unknown-parameter", f"{command[3]} requires {name!r} in this version; compile the graph again"
