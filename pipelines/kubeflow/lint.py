"""Checks a compiled graph for what a cluster would stumble over, often hours into a run, or only show as a blank page.

Works on any pipeline of Kubeflow's intermediate representation; about Cytoloom's own stages it knows more.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.registry import declaration, names
from pipelines.executor.ir import documents, understood
from pipelines.kubeflow.lint_secrets import VALUE, in_constant, in_words, named
from pipelines.kubeflow.resources import QUANTITY, amount

LONGEST_NAME = 63
"""Characters of a label's value and a pod's host name in Kubernetes (RFC 1123)."""
ADDED_TO_NAME = len("-xxxxx-system-container-impl-0000000000")
"""What Argo and Kubeflow append to a pipeline's name in the names of its pods."""
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
HASH_TAG = re.compile(r"(.*[.-])?[0-9a-f]{7,64}")
"""A tag that holds the hash of what is in the image, as `make images` gives one: it is never moved to another. Of any
other, be it 3.11 or 2.4.1, only its owner knows."""
STUBS = "argostub/"
"""Images of tasks that Kubeflow does itself, such as making a volume: no such container runs."""
DNS_LABEL, DNS_SUBDOMAIN = 63, 253
"""Characters of names in Kubernetes (RFC 1123)."""
DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
NAMED = {
    ("pvcMount", "constant"): DNS_LABEL,  # Kubeflow calls the pod's volume as the claim
    ("emptyDirMounts", "volumeName"): DNS_LABEL,
    ("secretAsVolume", "secretName"): DNS_LABEL,  # and as the secret
    ("configMapAsVolume", "configMapName"): DNS_LABEL,
    ("secretAsEnv", "secretName"): DNS_SUBDOMAIN,
    ("configMapAsEnv", "configMapName"): DNS_SUBDOMAIN,
    ("imagePullSecret", "secretName"): DNS_SUBDOMAIN,
}
"""(list in a task's settings, field of its items) -> characters that the name may have."""
MADE = {"pvc_name": DNS_LABEL, "storage_class_name": DNS_SUBDOMAIN, "volume_name": DNS_SUBDOMAIN}
"""The same for what a task that makes a volume is given."""


@dataclass(frozen=True)
class Finding:
    """Something a cluster would stumble over."""

    file: str
    where: str
    """Task as shown in the UI, its rounds before it: `em-1/refine-masks`."""
    rule: str
    message: str

    def __str__(self) -> str:
        """One line for a terminal."""
        return f"{self.file}: {self.where}: error: {self.message} [{self.rule}]"


def lint(path: Path, shown: str = "") -> list[Finding]:
    """Every finding in a compiled pipeline, in the order of its tasks; shown: what to call the file.

    Raises UserError where the file is no compiled pipeline.
    """
    spec, platform = documents(path)
    with understood(path):
        return list(_Linter(shown or str(path), spec, platform).findings())


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
            yield from self.constants(where, task, component)
            if "dag" in component:
                yield from self.nested(where, component)
                yield from self.dag(component["dag"], f"{where}/")
            else:
                yield from self.task(where, task, component)

    def name(self, where: str, key: str) -> Iterator[Finding]:
        """A task's key becomes a label of its pods."""
        if len(key) > LONGEST_NAME:
            yield self.error(where, "name", f"{key!r} is too long for a label: {LONGEST_NAME} characters at most")

    def object_name(self, where: str, what: str, name: Any, longest: int) -> Iterator[Finding]:
        """Of a claim, a secret, a class, ...: Kubernetes refuses a pod that refers to a name it could not have."""
        if not isinstance(name, str) or not name or name.startswith("{{$"):
            return
        if len(name) > longest:
            yield self.error(where, "name", f"{what} {name!r} is too long: {longest} characters at most")
        elif not DNS_NAME.fullmatch(name) or (longest == DNS_LABEL and "." in name):
            allowed = "letters and digits, '-' between them" + ("" if longest == DNS_LABEL else ", and '.'")
            message = f"{what} {name!r}: Kubernetes has lower-case {allowed} in such a name"
            yield self.error(where, "name", message)

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
        executor = self.executors.get(label, {})
        if "importer" in executor:  # its uri is a parameter, which was looked at
            return
        container = executor["container"]
        if container.get("image", "").startswith(STUBS):
            given = task.get("inputs", {}).get("parameters", {})
            for name in given.keys() & MADE.keys():
                constant = given[name].get("runtimeValue", {}).get("constant")
                yield from self.object_name(where, name, constant, MADE[name])
            return
        yield from self.container(where, container, task, component, self.settings.get(label, {}))

    def container(
        self,
        where: str,
        container: dict[str, Any],
        task: dict[str, Any],
        component: dict[str, Any],
        settings: dict[str, Any],
    ) -> Iterator[Finding]:
        resources = container.get("resources", {})
        yield from self.image(where, container.get("image", ""))
        yield from self.environment(where, container)
        yield from self.outputs(where, component)
        yield from self.stage(where, container, component)
        for (group, field), longest in NAMED.items():
            for item in settings.get(group, []):
                yield from self.object_name(where, field, item.get(field), longest)
        for what in ("Cpu", "Memory"):
            request, limit = (str(resources.get(f"resource{what}{end}", "")) for end in ("Request", "Limit"))
            if QUANTITY.fullmatch(request) and QUANTITY.fullmatch(limit) and amount(request) > amount(limit):
                message = f"{what.lower()}: {request} are requested, {limit} is the limit: no such pod is let in"
                yield self.error(where, "request", message)
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
        media = {mount.get("mountPath"): mount.get("medium", "") for mount in settings.get("emptyDirMounts", [])}
        if "/dev/shm" not in media:
            yield self.error(where, "shm", "no mount at /dev/shm: data loaders fail above 64 MiB")
        elif media["/dev/shm"] != "Memory":
            yield self.error(where, "shm", "the mount at /dev/shm is a disk: give it the medium Memory")
        if not int(task.get("retryPolicy", {}).get("maxRetryCount", 0)):
            yield self.error(where, "retry", "no retries: a drained node ends the run")
        if not settings.get("activeDeadlineSeconds"):
            yield self.error(where, "timeout", "no timeout: a pod that hangs keeps its GPU for ever")

    def image(self, where: str, image: str) -> Iterator[Finding]:
        name, _, digest = image.partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        if not DIGEST.fullmatch(digest) and not HASH_TAG.fullmatch(tag):
            shown = f"tag {tag!r}, which may be moved" if tag else "no tag"
            message = f"image {image!r} has {shown}: what runs could change between tasks; name its digest, @sha256:..."
            yield self.error(where, "image-tag", message)

    def environment(self, where: str, container: dict[str, Any]) -> Iterator[Finding]:
        for item in container.get("env", []):
            if item.get("value") and (named(item["name"]) or VALUE.search(str(item["value"]))):
                message = f"the value of {item['name']} is in plain text; use kubernetes.use_secret_as_env"
                yield self.error(where, "secret", message)
        if found := in_words([*container.get("command", []), *container.get("args", [])]):
            yield self.error(where, "secret", f"{', '.join(found)}: in plain text in the command; use a secret")

    def constants(self, where: str, task: dict[str, Any], component: dict[str, Any]) -> Iterator[Finding]:
        given = task.get("inputs", {}).get("parameters", {})
        for name, item in given.items():
            yield from self.plain(where, name, item.get("runtimeValue", {}).get("constant"))
        yield from self.defaults(where, component, given)

    def defaults(self, where: str, component: dict[str, Any], given: Collection[str] = ()) -> Iterator[Finding]:
        for name, item in component.get("inputDefinitions", {}).get("parameters", {}).items():
            if name not in given:
                yield from self.plain(where, name, item.get("defaultValue"))

    def plain(self, where: str, name: str, value: Any) -> Iterator[Finding]:
        """A constant that looks like a secret; parameters show in the UI."""
        for found in in_constant(name, value):
            message = f"{found}: looks like a secret, and parameters are shown in the UI; use a Kubernetes secret"
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
