"""Reads a compiled pipeline (Kubeflow's intermediate representation, YAML) into a flat graph of container tasks.

Nested pipelines are dissolved: `em-1/refine-masks` is the task `refine-masks` in the nested pipeline shown as `em-1`,
and every input of a task leads straight to where its value comes from. What cannot be executed here is refused.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipelines.executor.task_graph import (
    Condition,
    Constant,
    Graph,
    Output,
    Parameter,
    ParameterSpec,
    Source,
    Task,
    Text,
    leads,
)
from shared.system.errors import UserError

PLACEHOLDER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
CONDITION = re.compile(r"(?:(?:int|double|string)\()?inputs\.parameter_values\['([^']+)'\]\)?\s*(==|!=)\s*(.+)")
ON_CLAIMS = ("CYTOLOOM_CACHE", "CYTOLOOM_CHECKPOINTS")
"""What a graph sets where a cluster has volumes for them; this machine has its own folders."""


def documents(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(graph, settings of Kubernetes) of a compiled pipeline. Raises UserError where the file is none."""
    try:
        found = list(yaml.load_all(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    spec: dict[str, Any] = found[0] if found and isinstance(found[0], dict) else {}
    info, root, deployment = (spec.get(part) for part in ("pipelineInfo", "root", "deploymentSpec"))
    named = isinstance(info, dict) and isinstance(info.get("name"), str)
    if not named or not isinstance(root, dict) or not isinstance(deployment, dict):
        what = "a workflow of Kubeflow Pipelines v1" if spec.get("kind") == "Workflow" else "not a compiled pipeline"
        raise UserError(f"{path}: {what}; `cytoloom compile NAME -o {path.name}` makes one of version 2")
    return spec, found[1] if len(found) > 1 and isinstance(found[1], dict) else {}


@contextlib.contextmanager
def understood(path: Path) -> Iterator[None]:
    """Raise UserError where the graph in hand is not of the shape that Kubeflow's compiler gives it."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: damaged, or not what Kubeflow's compiler writes ({reason}); compile again") from error


def read(path: Path) -> Graph:
    """Read a compiled pipeline. Raises UserError where the file is none, or holds what cannot be executed here."""
    spec, _ = documents(path)
    with understood(path):
        return _graph(path, spec)


def _graph(path: Path, spec: dict[str, Any]) -> Graph:
    root = spec["root"]
    definitions = root.get("inputDefinitions", {})
    if definitions.get("artifacts"):
        raise UserError(f"{path}: the pipeline takes artifacts as inputs; give their paths to an importer instead")
    parameters = {
        name: ParameterSpec(
            item["parameterType"],
            not item.get("isOptional") and "defaultValue" not in item,
            number(item["parameterType"], item.get("defaultValue")),
        )
        for name, item in definitions.get("parameters", {}).items()
    }
    reader = _Reader(spec)
    reader.dag(root["dag"], {name: Parameter(name) for name in parameters}, "", [])
    return Graph(spec["pipelineInfo"]["name"], parameters, _ordered(reader.tasks))


def number(kind: str, value: Any) -> Any:
    """A value as its type has it: YAML and JSON hold 3.0 where the parameter is a whole number."""
    return int(value) if kind == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer() else value


class _Reader:
    """Walks the nested DAGs and collects the leaves."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.components = spec.get("components", {})
        self.executors = spec["deploymentSpec"].get("executors", {})
        self.tasks: dict[str, Task] = {}

    def dag(
        self, dag: dict[str, Any], inputs: dict[str, Source], prefix: str, conditions: list[Condition]
    ) -> dict[str, Source]:
        """Add the tasks of one DAG; returns where its outputs come from."""
        made: dict[str, dict[str, Source]] = {}  # task in this DAG -> output -> source
        leaves: dict[str, set[str]] = {}  # task in this DAG -> names of the container tasks it consists of
        shown: set[str] = set()
        for key in _dag_order(dag["tasks"]):
            spec = dag["tasks"][key]
            name = prefix + (_unique(spec.get("taskInfo", {}).get("name") or key, key, shown))
            _refuse(spec, name)
            component = self.components[spec["componentRef"]["name"]]
            given = _inputs(spec, inputs, made, name)
            parameters = component.get("inputDefinitions", {}).get("parameters", {})
            for parameter, item in parameters.items():
                if parameter not in given and "defaultValue" in item:
                    given[parameter] = Constant(item["defaultValue"])
            own = conditions + _condition(spec, given, name)
            before = set(self.tasks)
            if "dag" in component:
                made[key] = self.dag(component["dag"], given, f"{name}/", own)
            else:
                self.tasks[name] = self._leaf(name, spec, component, given, own)
                outputs = component.get("outputDefinitions", {})
                keys = [*outputs.get("artifacts", {}), *outputs.get("parameters", {})]
                made[key] = {output: Output(name, output) for output in keys}
            leaves[key] = set(self.tasks) - before
            for earlier in spec.get("dependentTasks", []):
                if not _data_only(spec, earlier):
                    for leaf in leaves[key]:
                        self.tasks[leaf].after |= leaves[earlier]
        return _outputs(dag.get("outputs", {}), made, prefix)

    def _leaf(
        self,
        name: str,
        spec: dict[str, Any],
        component: dict[str, Any],
        given: dict[str, Source],
        conditions: list[Condition],
    ) -> Task:
        inputs = component.get("inputDefinitions", {})
        outputs = component.get("outputDefinitions", {})
        kinds = {key: item["parameterType"] for key, item in inputs.get("parameters", {}).items()}
        executor = self.executors[component["executorLabel"]]
        task = Task(
            name,
            retries=int(spec.get("retryPolicy", {}).get("maxRetryCount", 0)),
            parameters={key: _typed(given[key], kinds[key]) for key in kinds if key in given},
            kinds=kinds,
            artifacts={key: given[key] for key in inputs.get("artifacts", {}) if key in given},
            outputs={key: item["artifactType"] for key, item in outputs.get("artifacts", {}).items()},
            values={key: item["parameterType"] for key, item in outputs.get("parameters", {}).items()},
            conditions=conditions,
        )
        if "importer" in executor:
            uri = executor["importer"]["artifactUri"]
            task.import_uri = Constant(uri["constant"]) if "constant" in uri else given[uri["runtimeParameter"]]
        elif "container" in executor:
            container = executor["container"]
            task.image = container["image"]
            task.command = [*container.get("command", []), *container.get("args", [])]
            env = {item["name"]: item.get("value", "") for item in container.get("env", [])}
            task.env = {name: value for name, value in env.items() if name not in ON_CLAIMS}
            accelerator = container.get("resources", {}).get("accelerator", {})
            task.gpu = int(accelerator.get("resourceCount") or accelerator.get("count") or 0) > 0
            if odd := [word for word in task.command if word.startswith(('{"IfPresent"', '{"Concat"'))]:
                raise UserError(f"{name}: {odd[0]}: not supported on one machine; pass the value itself")
        else:
            raise UserError(f"{name}: neither a container nor an importer; not supported on one machine")
        task.after |= {s.task for value in [*task.parameters.values(), *task.artifacts.values()] for s in leads(value)}
        task.after |= {s.task for condition in conditions for s in leads(condition.source)}
        task.after |= {s.task for s in leads(task.import_uri)}
        return task


def _typed(source: Source, kind: str) -> Source:
    return Constant(number(kind, source.value)) if isinstance(source, Constant) else source


def _unique(name: str, key: str, shown: set[str]) -> str:
    """The display name, made safe as a folder's; the task's key where two share a display name."""
    name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or key
    name = key if name in shown else name
    shown.add(name)
    return name


def _refuse(spec: dict[str, Any], name: str) -> None:
    if "parameterIterator" in spec or "artifactIterator" in spec:
        raise UserError(f"{name}: dsl.ParallelFor is not supported on one machine; unroll the loop when compiling")
    strategy = spec.get("triggerPolicy", {}).get("strategy", "ALL_UPSTREAM_TASKS_SUCCEEDED")
    if strategy not in ("ALL_UPSTREAM_TASKS_SUCCEEDED", "TRIGGER_STRATEGY_UNSPECIFIED"):
        raise UserError(f"{name}: exit handlers ({strategy}) are not supported on one machine")


def _inputs(
    spec: dict[str, Any], inputs: dict[str, Source], made: dict[str, dict[str, Source]], name: str
) -> dict[str, Source]:
    """Where each input of a task comes from."""
    given: dict[str, Source] = {}
    section = spec.get("inputs", {})
    for key, item in {**section.get("parameters", {}), **section.get("artifacts", {})}.items():
        if "parameterExpressionSelector" in item:
            raise UserError(f"{name}: {key} is a part of another value; not supported on one machine")
        if "runtimeValue" in item:
            given[key] = Constant(item["runtimeValue"].get("constant"))
        elif "componentInputParameter" in item or "componentInputArtifact" in item:
            outer = item.get("componentInputParameter") or item["componentInputArtifact"]
            if outer in inputs:  # else an optional one that nobody gave
                given[key] = inputs[outer]
        elif "taskOutputParameter" in item or "taskOutputArtifact" in item:
            output = item.get("taskOutputParameter") or item["taskOutputArtifact"]
            given[key] = made[output["producerTask"]][output.get("outputParameterKey") or output["outputArtifactKey"]]
        else:
            raise UserError(f"{name}: {key}: {', '.join(item)} is not supported on one machine")
    for key, source in list(given.items()):
        if isinstance(source, Constant) and isinstance(source.value, str) and PLACEHOLDER.search(source.value):
            used = PLACEHOLDER.findall(source.value)
            given[key] = Text(source.value, {word: given.get(word) or inputs[word] for word in used})
    return given


def _condition(spec: dict[str, Any], given: dict[str, Source], name: str) -> list[Condition]:
    text = spec.get("triggerPolicy", {}).get("condition")
    if not text:
        return []
    match = CONDITION.fullmatch(text.strip())
    try:
        if match is None or match[1] not in given:
            raise ValueError
        constant = match[3].strip()
        value = constant[1:-1] if constant[0] == constant[-1] == "'" else json.loads(constant)
    except ValueError as error:
        message = f"{name}: the condition `{text}` is not supported on one machine; only `parameter == constant` is"
        raise UserError(message) from error
    return [Condition(given[match[1]], match[2] == "==", value)]


def _data_only(spec: dict[str, Any], earlier: str) -> bool:
    """Whether a task depends on `earlier` through its inputs alone, which the sources tell more exactly."""
    section = spec.get("inputs", {})
    items = [*section.get("parameters", {}).values(), *section.get("artifacts", {}).values()]
    outputs = (item.get("taskOutputParameter") or item.get("taskOutputArtifact") or {} for item in items)
    return any(output.get("producerTask") == earlier for output in outputs)


def _outputs(spec: dict[str, Any], made: dict[str, dict[str, Source]], prefix: str) -> dict[str, Source]:
    """Where the outputs of a DAG come from."""
    found = {}
    for key, item in spec.get("artifacts", {}).items():
        selectors = item["artifactSelectors"]
        if len(selectors) != 1:
            raise UserError(f"{prefix}{key}: dsl.OneOf is not supported on one machine")
        found[key] = made[selectors[0]["producerSubtask"]][selectors[0]["outputArtifactKey"]]
    for key, item in spec.get("parameters", {}).items():
        if "valueFromParameter" not in item:
            raise UserError(f"{prefix}{key}: dsl.OneOf is not supported on one machine")
        selector = item["valueFromParameter"]
        found[key] = made[selector["producerSubtask"]][selector["outputParameterKey"]]
    return found


def _dag_order(tasks: dict[str, Any]) -> list[str]:
    """Keys of a DAG's tasks, each after those it depends on."""
    order: list[str] = []
    waiting = list(tasks)
    while waiting:
        ready = [key for key in waiting if all(d in order for d in tasks[key].get("dependentTasks", []))]
        if not ready:
            raise UserError(f"the tasks {', '.join(waiting)} wait for one another")
        order += ready
        waiting = [key for key in waiting if key not in ready]
    return order


def _ordered(tasks: dict[str, Task]) -> dict[str, Task]:
    order = _dag_order({name: {"dependentTasks": task.after} for name, task in tasks.items()})
    return {name: tasks[name] for name in order}
