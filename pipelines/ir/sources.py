"""Resolve where the inputs and outputs of one DAG come from, and the condition of a task.

Sources are those of `task_graph`. Whatever the executor cannot evaluate is refused with the name of the task.
"""

import json
import re
from typing import Any

from pipelines.ir.task_graph import Condition, Constant, Source, Text
from shared.system.errors import UserError

PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_CONDITION = re.compile(r"(?:(?:int|double|string)\()?inputs\.parameter_values\['([^']+)'\]\)?\s*(==|!=)\s*(.+)")

Outputs = dict[str, dict[str, Source]]
"""Key of a task in its DAG -> output -> source."""


def input_sources(spec: dict[str, Any], inputs: dict[str, Source], outputs: Outputs, name: str) -> dict[str, Source]:
    """The source of each input of a task. inputs: of the DAG; outputs: of the tasks before it."""
    section = spec.get("inputs", {})
    found: dict[str, Source] = {}
    for key, item in {**section.get("parameters", {}), **section.get("artifacts", {})}.items():
        source = _input_source(key, item, inputs, outputs, name)
        if source is not None:
            found[key] = source
    for key, source in list(found.items()):
        if isinstance(source, Constant) and isinstance(source.value, str) and PLACEHOLDER.search(source.value):
            words = PLACEHOLDER.findall(source.value)
            found[key] = Text(source.value, {word: found.get(word) or inputs[word] for word in words})
    return found


def _input_source(
    key: str, item: dict[str, Any], inputs: dict[str, Source], outputs: Outputs, name: str
) -> Source | None:
    """The source of one input; None for an optional input of the DAG that has no value."""
    if "parameterExpressionSelector" in item:
        raise UserError(f"{name}: {key} is a part of another value, which one machine does not support; pass it whole")
    if "runtimeValue" in item:
        return Constant(item["runtimeValue"].get("constant"))
    if "componentInputParameter" in item or "componentInputArtifact" in item:
        return inputs.get(item.get("componentInputParameter") or item["componentInputArtifact"])
    if "taskOutputParameter" in item or "taskOutputArtifact" in item:
        output = item.get("taskOutputParameter") or item["taskOutputArtifact"]
        return outputs[output["producerTask"]][output.get("outputParameterKey") or output["outputArtifactKey"]]
    raise UserError(f"{name}: {key}: one machine does not support {', '.join(item)}")


def output_sources(spec: dict[str, Any], outputs: Outputs, prefix: str) -> dict[str, Source]:
    """The source of each output of a DAG. outputs: of its tasks."""
    found = {}
    for key, item in spec.get("artifacts", {}).items():
        selectors = item["artifactSelectors"]
        if len(selectors) != 1:
            raise UserError(f"{prefix}{key}: one machine does not support dsl.OneOf")
        found[key] = outputs[selectors[0]["producerSubtask"]][selectors[0]["outputArtifactKey"]]
    for key, item in spec.get("parameters", {}).items():
        if "valueFromParameter" not in item:
            raise UserError(f"{prefix}{key}: one machine does not support dsl.OneOf")
        selector = item["valueFromParameter"]
        found[key] = outputs[selector["producerSubtask"]][selector["outputParameterKey"]]
    return found


def conditions(spec: dict[str, Any], given: dict[str, Source], name: str) -> list[Condition]:
    """The condition of a task, as a list of none or one. given: sources of the task's inputs."""
    text = spec.get("triggerPolicy", {}).get("condition")
    if not text:
        return []
    match = _CONDITION.fullmatch(text.strip())
    try:
        if match is None or match[1] not in given:
            raise ValueError
        constant = match[3].strip()
        value = constant[1:-1] if constant[0] == constant[-1] == "'" else json.loads(constant)
    except ValueError as error:
        message = f"{name}: one machine does not support the condition `{text}`; use `parameter == constant`"
        raise UserError(message) from error
    return [Condition(given[match[1]], match[2] == "==", value)]
