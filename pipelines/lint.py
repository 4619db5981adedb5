"""Checks a compiled graph for what a cluster would stumble over, often hours into a run, or only show as a blank page.

Works on any pipeline of Kubeflow's intermediate representation; about Cytoloom's own stages it knows more.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.__main__ import declaration, names
from shared.errors import UserError

LONGEST_NAME = 63
"""Characters of a label's value and a pod's host name in Kubernetes (RFC 1123)."""
ADDED_TO_NAME = len("-xxxxx-system-container-impl-0000000000")
"""What Argo and Kubeflow append to a pipeline's name in the names of its pods."""
MOVING_TAGS = {"", "latest", "main", "master", "dev", "stable", "nightly"}
SECRET_NAME = re.compile(r"(secret|passw|token|credential|api_?key|access_?key)", re.IGNORECASE)
SECRET_VALUE = re.compile(
    r"\bAKIA[0-9A-Z]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----|\bgh[pousr]_[A-Za-z0-9]{36}\b|://[^/\s:@]+:[^/\s@]+@"
)


@dataclass(frozen=True)
class Finding:
    """Something a cluster would stumble over."""

    file: str
    where: str
    """Task as shown in the UI, its rounds before it: `em-1/refine-masks`."""
    rule: str
    message: str
    error: bool = True
    """False: it works, but not as well as it could."""

    def __str__(self) -> str:
        """One line for a terminal."""
        kind = "error" if self.error else "warning"
        return f"{self.file}: {self.where}: {kind}: {self.message} [{self.rule}]"


def lint(path: Path, shown: str = "") -> list[Finding]:
    """Every finding in a compiled pipeline, in the order of its tasks; shown: what to call the file.

    Raises UserError where the file is no compiled pipeline.
    """
    try:
        documents = list(yaml.safe_load_all(path.read_bytes()))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    spec = documents[0] if documents else None
    if not isinstance(spec, dict) or not {"pipelineInfo", "root", "deploymentSpec"} <= set(spec):
        what = "a workflow of Kubeflow Pipelines v1" if _is_v1(spec) else "not a compiled pipeline"
        raise UserError(f"{path}: {what}; `cytoloom compile NAME -o {path.name}` makes one of version 2")
    platform = documents[1] if len(documents) > 1 and isinstance(documents[1], dict) else {}
    return list(_Linter(shown or str(path), spec, platform).findings())


def _is_v1(spec: Any) -> bool:
    return isinstance(spec, dict) and spec.get("kind") == "Workflow"


class _Linter:
    """Walks the nested graphs."""

    def __init__(self, file: str, spec: dict[str, Any], platform: dict[str, Any]) -> None:
        self.file, self.spec = file, spec
        self.components = spec.get("components", {})
        self.executors = spec["deploymentSpec"].get("executors", {})
        kubernetes = platform.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {})
        self.settings = kubernetes.get("executors", {})

    def findings(self) -> Iterator[Finding]:
        name = self.spec["pipelineInfo"].get("name", "")
        if len(name) + ADDED_TO_NAME > LONGEST_NAME:
            yield self.error(
                name, "name", f"the pipeline's name is too long: {LONGEST_NAME - ADDED_TO_NAME} characters at most"
            )
        yield from self.defaults(name, self.spec["root"])
        yield from self.dag(self.spec["root"].get("dag", {}), "")

    def dag(self, dag: dict[str, Any], prefix: str) -> Iterator[Finding]:
        for key, task in dag.get("tasks", {}).items():
            where = prefix + (task.get("taskInfo", {}).get("name") or key)
            component = self.components.get(task.get("componentRef", {}).get("name", ""), {})
            yield from self.name(where, key)
            yield from self.constants(where, task)
            if "dag" in component:
                yield from self.nested(where, component)
                yield from self.dag(component["dag"], f"{where}/")
            else:
                yield from self.task(where, task, component)

    def name(self, where: str, key: str) -> Iterator[Finding]:
        """A task's key becomes a label of its pods."""
        if len(key) > LONGEST_NAME:
            yield self.error(where, "name", f"{key!r} is too long for a label: {LONGEST_NAME} characters at most")

    def nested(self, where: str, component: dict[str, Any]) -> Iterator[Finding]:
        inputs = component.get("inputDefinitions", {})
        for name, item in inputs.get("artifacts", {}).items():
            if item.get("isOptional"):
                message = f"{name}: an optional artifact does not get into a nested pipeline; pass an empty one instead"
                yield self.error(where, "optional-artifact", message)
        if not inputs.get("parameters"):
            yield self.error(where, "nested", "a nested pipeline without a parameter is not started by every backend")

    def task(self, where: str, task: dict[str, Any], component: dict[str, Any]) -> Iterator[Finding]:
        label = component.get("executorLabel", "")
        container = self.executors.get(label, {}).get("container")
        if container is None:
            return  # an importer
        resources, settings = container.get("resources", {}), self.settings.get(label, {})
        yield from self.image(where, container.get("image", ""))
        yield from self.environment(where, container)
        yield from self.outputs(where, component)
        yield from self.stage(where, container, component)
        if not (resources.get("resourceMemoryLimit") or resources.get("memoryLimit")):
            yield self.error(where, "memory", "no memory limit: a leak takes the whole node down with it")
        accelerator = resources.get("accelerator", {})
        count = str(accelerator.get("resourceCount") or accelerator.get("count") or "")
        kind = accelerator.get("resourceType") or accelerator.get("type") or ""
        if count not in ("", "0") and not kind:
            yield self.error(where, "gpu-type", "a number of GPUs without their type: no GPU is given")
        if kind and count in ("", "0"):
            yield self.error(where, "gpu-type", f"{kind} without a number: no GPU is given")
        if kind and count not in ("", "0"):
            yield from self.gpu(where, task, settings)

    def gpu(self, where: str, task: dict[str, Any], settings: dict[str, Any]) -> Iterator[Finding]:
        """What every task on a GPU needs."""
        mounts = [mount.get("mountPath") for mount in settings.get("emptyDirMounts", [])]
        if "/dev/shm" not in mounts:
            yield self.error(where, "shm", "no mount at /dev/shm: data loaders fail above 64 MiB")
        if not int(task.get("retryPolicy", {}).get("maxRetryCount", 0)):
            yield self.error(where, "retry", "no retries: a drained node ends the run")
        if not settings.get("activeDeadlineSeconds"):
            yield self.error(where, "timeout", "no timeout: a pod that hangs keeps its GPU for ever")

    def image(self, where: str, image: str) -> Iterator[Finding]:
        name, at, _ = image.partition("@sha256:")
        tag = name.rpartition("/")[2].partition(":")[2]
        if not at and tag in MOVING_TAGS:
            shown = f"tag {tag!r}" if tag else "no tag"
            message = f"image {image!r} has {shown}: what runs may change between tasks; name a version or a digest"
            yield self.error(where, "image-tag", message)

    def environment(self, where: str, container: dict[str, Any]) -> Iterator[Finding]:
        for item in container.get("env", []):
            if item.get("value") and (SECRET_NAME.search(item["name"]) or SECRET_VALUE.search(str(item["value"]))):
                message = f"the value of {item['name']} is in plain text; use kubernetes.use_secret_as_env"
                yield self.error(where, "secret", message)
        for word in [*container.get("command", []), *container.get("args", [])]:
            if SECRET_VALUE.search(str(word)):
                yield self.error(where, "secret", "what looks like a key is in the command; use a secret")

    def constants(self, where: str, task: dict[str, Any]) -> Iterator[Finding]:
        for name, item in task.get("inputs", {}).get("parameters", {}).items():
            yield from self.plain(where, name, item.get("runtimeValue", {}).get("constant"))

    def defaults(self, where: str, root: dict[str, Any]) -> Iterator[Finding]:
        for name, item in root.get("inputDefinitions", {}).get("parameters", {}).items():
            yield from self.plain(where, name, item.get("defaultValue"))

    def plain(self, where: str, name: str, value: Any) -> Iterator[Finding]:
        """A constant that looks like a secret; parameters show in the UI."""
        if isinstance(value, str) and value and (SECRET_NAME.search(name) or SECRET_VALUE.search(value)):
            message = f"{name}: looks like a secret, and parameters are shown in the UI; use a Kubernetes secret"
            yield self.error(where, "secret", message)

    def outputs(self, where: str, component: dict[str, Any]) -> Iterator[Finding]:
        artifacts = component.get("outputDefinitions", {}).get("artifacts", {})
        pages = [name for name, item in artifacts.items() if item["artifactType"].get("schemaTitle") == "system.HTML"]
        if len(pages) > 1:
            yield self.error(
                where, "html", f"{len(pages)} HTML outputs ({', '.join(pages)}): the UI shows the first alone"
            )

    def stage(self, where: str, container: dict[str, Any], component: dict[str, Any]) -> Iterator[Finding]:
        """Whether one of our stages knows what it is given, by the code that is here."""
        command = container.get("command", [])
        if command[:3] != ["python", "-m", "components"] or len(command) < 4:
            return
        if command[3] not in names():
            yield self.error(where, "stage", f"there is no stage {command[3]!r} in this version")
            return
        stage = declaration(command[3])
        inputs = component.get("inputDefinitions", {})
        for name in [*inputs.get("parameters", {}), *inputs.get("artifacts", {})]:
            if name not in stage.model_fields:
                message = f"{command[3]} has no {name!r} in this version; compile the graph again"
                yield self.error(where, "unknown-parameter", message)
        for name, field in stage.parameters().items():
            if field.is_required() and name not in inputs.get("parameters", {}):
                yield self.error(where, "unknown-parameter", f"{command[3]} needs {name!r}; compile the graph again")

    def error(self, where: str, rule: str, message: str) -> Finding:
        return Finding(self.file, where, rule, message)
