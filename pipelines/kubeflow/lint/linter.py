"""Walk the nested graphs of a compiled pipeline and apply every rule."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.ir.documents import load_documents, refuse_malformed, task_settings
from pipelines.kubeflow.lint import containers, kinds, names, size, stages
from pipelines.kubeflow.lint.finding import Finding, Problems
from pipelines.kubeflow.lint.secrets import plain_text_secrets, secrets_in_defaults


def lint(path: Path, shown: str = "") -> list[Finding]:
    """Return every finding in a compiled pipeline, in the order of its tasks. shown: what to call the file.

    Raises UserError if the file is not a compiled pipeline.
    """
    spec, platform = load_documents(path)
    with refuse_malformed(path):
        found = list(_Walk(spec, task_settings(platform)).pipeline())
    found += [(where, ("artifact-kind", message)) for where, message in kinds.mismatches(path)]
    return [Finding(shown or str(path), where, rule, message) for where, (rule, message) in found]


class _Walk:
    """Visits the tasks of a pipeline; yields (task as shown in the UI, (rule, message))."""

    def __init__(self, spec: dict[str, Any], settings: dict[str, Any]) -> None:
        """settings: executor label -> Kubernetes settings of its tasks."""
        self.spec, self.settings = spec, settings
        self.names: dict[str, str] = {}
        """Name of a task -> where the first one of this name is."""
        self.containers = 0
        """Number of tasks with a container."""
        self.components = spec.get("components", {})
        self.executors = spec["deploymentSpec"].get("executors", {})

    def pipeline(self) -> Iterator[tuple[str, tuple[str, str]]]:
        name = self.spec["pipelineInfo"].get("name", "")
        for problem in (*names.pipeline_name(name), *secrets_in_defaults(self.spec["root"])):
            yield name, problem
        yield from self._dag(self.spec["root"].get("dag", {}), "")
        yield from ((name, problem) for problem in size.too_many_tasks(self.containers))

    def _dag(self, dag: dict[str, Any], prefix: str) -> Iterator[tuple[str, tuple[str, str]]]:
        for key, task in dag.get("tasks", {}).items():
            where = prefix + (task.get("taskInfo", {}).get("name") or key)
            component = self.components.get(task.get("componentRef", {}).get("name", ""), {})
            for problem in (*names.task_name(key, where, self.names), *plain_text_secrets(task, component)):
                yield where, problem
            problems = _nested(component) if "dag" in component else self._task(task, component)
            yield from ((where, problem) for problem in problems)
            if "dag" in component:
                yield from self._dag(component["dag"], f"{where}/")

    def _task(self, task: dict[str, Any], component: dict[str, Any]) -> Problems:
        """Apply the rules for a container task."""
        label = component.get("executorLabel", "")
        executor = self.executors.get(label, {})
        if "importer" in executor:  # its URI is a parameter, which was checked for secrets
            return
        container = executor["container"]
        if container.get("image", "").startswith(containers.STUBS):
            yield from names.created_volume(task)
            return
        settings = self.settings.get(label, {})
        self.containers += 1
        yield from containers.container_problems(container, task, component, settings)
        yield from stages.stage_problems(container, component)
        yield from names.referenced_objects(settings)


def _nested(component: dict[str, Any]) -> Problems:
    """Apply the rules for a nested pipeline."""
    inputs = component.get("inputDefinitions", {})
    for name, item in inputs.get("artifacts", {}).items():
        if item.get("isOptional"):
            message = f"{name}: Kubeflow does not pass an optional artifact to a nested pipeline; pass an empty one"
            yield "optional-artifact", message
    if not inputs.get("parameters"):
        yield "nested", "some backends do not start a nested pipeline that has no parameter; add one"
