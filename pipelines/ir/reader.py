"""Read a compiled pipeline (YAML of Kubeflow's intermediate representation) into a flat graph of container tasks.

Nested pipelines are flattened: `em-1/refine-masks` is the task `refine-masks` of the nested pipeline displayed as
`em-1`, and each input leads straight to the task or parameter that its value comes from. Constructs that cannot be
executed on one machine are refused.
"""

import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipelines.ir.documents import load_documents, refuse_malformed
from pipelines.ir.sources import Outputs, conditions, input_sources, output_sources
from pipelines.ir.task_graph import (
    Condition,
    Constant,
    Graph,
    Parameter,
    ParameterSpec,
    Source,
    Task,
    TaskOutput,
    task_outputs,
)
from shared.system.errors import UserError

_ON_CLAIMS = ("CYTOLOOM_CACHE", "CYTOLOOM_CHECKPOINTS")
"""Variables for volumes of a cluster, which the executor replaces with folders of this machine."""
_OF_RUN = ("run.json", "report.html", "pipeline.yaml")
"""Files of a run folder, beside which the folders of tasks lie."""


def read(path: Path) -> Graph:
    """Read a compiled pipeline. Raises UserError if the file is not one, or cannot be executed on one machine."""
    spec, _ = load_documents(path)
    with refuse_malformed(path):
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
    flattener = _Flattener(spec)
    flattener.add_dag(root["dag"], {name: Parameter(name) for name in parameters}, "", [])
    return Graph(spec["pipelineInfo"]["name"], parameters, _ordered(flattener.tasks))


def number(kind: str, value: Any) -> Any:
    """Return 3 for 3.0 if the type is a whole number: YAML and JSON hold a float there."""
    return int(value) if kind == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer() else value


class _Flattener:
    """Walks the nested DAGs and collects their container tasks."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.components = spec.get("components", {})
        self.executors = spec["deploymentSpec"].get("executors", {})
        self.tasks: dict[str, Task] = {}

    def add_dag(
        self, dag: dict[str, Any], inputs: dict[str, Source], prefix: str, outer: list[Condition]
    ) -> dict[str, Source]:
        """Add the tasks of one DAG; return the sources of its outputs."""
        outputs: Outputs = {}
        leaves: dict[str, set[str]] = {}  # key of a task in this DAG -> names of the container tasks that it contains
        used_names = set() if prefix else set(_OF_RUN)
        for key in _dag_order(dag["tasks"]):
            spec = dag["tasks"][key]
            name = prefix + _unique(spec.get("taskInfo", {}).get("name") or key, key, used_names)
            before = set(self.tasks)
            outputs[key] = self._add_task(name, spec, inputs, outputs, outer)
            leaves[key] = set(self.tasks) - before
            for earlier in spec.get("dependentTasks", []):
                if not _depends_by_data(spec, earlier):
                    for leaf in leaves[key]:
                        self.tasks[leaf].after |= leaves[earlier]
        return output_sources(dag.get("outputs", {}), outputs, prefix)

    def _add_task(
        self, name: str, spec: dict[str, Any], inputs: dict[str, Source], outputs: Outputs, outer: list[Condition]
    ) -> dict[str, Source]:
        """Add one task of a DAG, or all tasks of a nested DAG; return the sources of its outputs."""
        _refuse_unsupported(spec, name)
        component = self.components[spec["componentRef"]["name"]]
        given = input_sources(spec, inputs, outputs, name)
        for parameter, item in component.get("inputDefinitions", {}).get("parameters", {}).items():
            if parameter not in given and "defaultValue" in item:
                given[parameter] = Constant(item["defaultValue"])
        own = outer + conditions(spec, given, name)
        if "dag" in component:
            return self.add_dag(component["dag"], given, f"{name}/", own)
        self.tasks[name] = self._container_task(name, spec, component, given, own)
        definitions = component.get("outputDefinitions", {})
        keys = _plain_keys([*definitions.get("artifacts", {}), *definitions.get("parameters", {})], name)
        return {output: TaskOutput(name, output) for output in keys}

    def _container_task(
        self,
        name: str,
        spec: dict[str, Any],
        component: dict[str, Any],
        given: dict[str, Source],
        own: list[Condition],
    ) -> Task:
        inputs, outputs = component.get("inputDefinitions", {}), component.get("outputDefinitions", {})
        kinds = {key: item["parameterType"] for key, item in inputs.get("parameters", {}).items()}
        task = Task(
            name,
            retries=int(spec.get("retryPolicy", {}).get("maxRetryCount", 0)),
            parameters={key: _typed(given[key], kinds[key]) for key in kinds if key in given},
            kinds=kinds,
            artifacts={key: given[key] for key in inputs.get("artifacts", {}) if key in given},
            outputs={key: item["artifactType"] for key, item in outputs.get("artifacts", {}).items()},
            values={key: item["parameterType"] for key, item in outputs.get("parameters", {}).items()},
            conditions=own,
        )
        executor = self.executors[component["executorLabel"]]
        if "importer" in executor:
            uri = executor["importer"]["artifactUri"]
            task.import_uri = Constant(uri["constant"]) if "constant" in uri else given[uri["runtimeParameter"]]
        elif "container" in executor:
            _set_container(task, executor["container"])
        else:
            raise UserError(f"{name}: neither a container nor an importer; one machine does not support it")
        sources = [*task.parameters.values(), *task.artifacts.values(), *(c.source for c in own), task.import_uri]
        task.after |= {output.task for source in sources for output in task_outputs(source)}
        return task


def _set_container(task: Task, container: dict[str, Any]) -> None:
    """Set the image, command, environment and GPU of a task."""
    task.image = container["image"]
    task.command = [*container.get("command", []), *container.get("args", [])]
    env = {item["name"]: item.get("value", "") for item in container.get("env", [])}
    task.env = {name: value for name, value in env.items() if name not in _ON_CLAIMS}
    accelerator = container.get("resources", {}).get("accelerator", {})
    task.gpu = int(accelerator.get("resourceCount") or accelerator.get("count") or 0) > 0
    for word in task.command:
        if word.startswith(('{"IfPresent"', '{"Concat"')):
            raise UserError(f"{task.name}: one machine does not support {word}; pass the value itself")


def _typed(source: Source, kind: str) -> Source:
    return Constant(number(kind, source.value)) if isinstance(source, Constant) else source


def _unique(name: str, key: str, used: set[str]) -> str:
    """Return the display name, else the task's key, safe as a folder's name; with a number where both are used."""
    plain = [safe for text in (name, key) if (safe := re.sub(r"[^\w.-]+", "-", text).strip("-."))] or ["task"]
    numbered = (f"{plain[0]}-{number}" for number in itertools.count(2))
    found = next(one for one in itertools.chain(plain, numbered) if one not in used)
    used.add(found)
    return found


def _plain_keys(keys: Iterable[str], task: str) -> list[str]:
    """Return the keys of a task's outputs, which become names of files. Raises UserError for one that cannot."""
    for key in (keys := list(keys)):
        if not re.fullmatch(r"[\w-][\w.-]*", key):
            raise UserError(f"{task}: the output {key!r} cannot name a file; use letters, digits, '_' and '-'")
    return keys


def _refuse_unsupported(spec: dict[str, Any], name: str) -> None:
    if "parameterIterator" in spec or "artifactIterator" in spec:
        raise UserError(f"{name}: one machine does not support dsl.ParallelFor; unroll the loop when compiling")
    strategy = spec.get("triggerPolicy", {}).get("strategy", "ALL_UPSTREAM_TASKS_SUCCEEDED")
    if strategy not in ("ALL_UPSTREAM_TASKS_SUCCEEDED", "TRIGGER_STRATEGY_UNSPECIFIED"):
        raise UserError(f"{name}: one machine does not support exit handlers ({strategy})")


def _depends_by_data(spec: dict[str, Any], earlier: str) -> bool:
    """Whether a task reads an output of `earlier`; its sources then name the exact container task to wait for."""
    section = spec.get("inputs", {})
    items = [*section.get("parameters", {}).values(), *section.get("artifacts", {}).values()]
    outputs = (item.get("taskOutputParameter") or item.get("taskOutputArtifact") or {} for item in items)
    return any(output.get("producerTask") == earlier for output in outputs)


def _dag_order(tasks: dict[str, Any]) -> list[str]:
    """Sort the keys of a DAG's tasks topologically."""
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
