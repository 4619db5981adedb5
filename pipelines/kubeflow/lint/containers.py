"""Rules for the container of a task: image, resources, GPU, environment, pages."""

import re
from typing import Any

from pipelines.kubeflow.lint.finding import Problems
from pipelines.kubeflow.lint.secrets import VALUE, in_words, names_secret
from pipelines.kubeflow.quantities import QUANTITY, amount
from pipelines.kubeflow.retries import retry_window

STUBS = "argostub/"
"""Images of tasks that Kubeflow executes itself, such as creating a volume: no such container runs."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HASH_TAG = re.compile(r"(.*[.-])?[0-9a-f]{7,64}")
"""A tag that holds a hash of the image's contents, as those of `make images`. Any other tag, such as 3.11, may move."""


def container_problems(
    container: dict[str, Any], task: dict[str, Any], component: dict[str, Any], settings: dict[str, Any]
) -> Problems:
    """Apply the rules for a task. settings: its Kubernetes settings."""
    resources = container.get("resources", {})
    yield from _image(container.get("image", ""))
    yield from _environment(container)
    yield from _pages(component)
    yield from _requests(resources)
    yield from _attempts(task.get("retryPolicy", {}), int(settings.get("activeDeadlineSeconds", 0)))
    accelerator = resources.get("accelerator", {})
    count = str(accelerator.get("resourceCount") or accelerator.get("count") or "")
    kind = accelerator.get("resourceType") or accelerator.get("type") or ""
    if count not in ("", "0") and not kind:
        yield "gpu-type", "a number of GPUs without their type requests no GPU; set the accelerator type"
    if kind and count in ("", "0"):
        yield "gpu-type", f"{kind} without a number requests no GPU; set the accelerator limit"
    if kind and count not in ("", "0"):
        yield from _gpu(task, settings)


def _image(image: str) -> Problems:
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if not _DIGEST.fullmatch(digest) and not _HASH_TAG.fullmatch(tag):
        found = f"tag {tag!r}, which may move" if tag else "no tag"
        yield "image-tag", f"image {image!r} has {found}: tasks could run different code; use its digest, @sha256:..."


def _environment(container: dict[str, Any]) -> Problems:
    for item in container.get("env", []):
        if item.get("value") and (names_secret(item["name"]) or VALUE.search(str(item["value"]))):
            yield "secret", f"the value of {item['name']} is plain text; use kubernetes.use_secret_as_env"
    if found := in_words([*container.get("command", []), *container.get("args", [])]):
        yield "secret", f"{', '.join(found)}: plain text in the command; use a Kubernetes secret"


def _pages(component: dict[str, Any]) -> Problems:
    artifacts = component.get("outputDefinitions", {}).get("artifacts", {})
    pages = [name for name, item in artifacts.items() if item["artifactType"].get("schemaTitle") == "system.HTML"]
    if len(pages) > 1:
        yield "html", f"{len(pages)} HTML outputs ({', '.join(pages)}), but the UI shows only the first; keep one"


def _requests(resources: dict[str, Any]) -> Problems:
    for name in ("Cpu", "Memory"):
        request, limit = (str(resources.get(f"resource{name}{end}", "")) for end in ("Request", "Limit"))
        if QUANTITY.fullmatch(request) and QUANTITY.fullmatch(limit) and amount(request) > amount(limit):
            yield "request", f"{name.lower()}: the request {request} exceeds the limit {limit}; Kubernetes refuses it"
    if not (resources.get("resourceMemoryLimit") or resources.get("memoryLimit")):
        yield "memory", "no memory limit: a leak would exhaust the node; set one"


def _attempts(policy: dict[str, Any], timeout: int) -> Problems:
    """Check that all attempts fit in the window that Argo counts from the start of the first one."""
    retries = int(policy.get("maxRetryCount", 0))
    if not retries or not timeout:
        return
    window, pause = (_seconds(policy.get(name, "0s")) for name in ("backoffMaxDuration", "backoffDuration"))
    needed = retry_window(retries, timeout, pause, float(policy.get("backoffFactor", 1)))
    if window < needed:
        needs = f"{retries + 1} attempts of at most {timeout} s need {needed} s"
        yield "retry-window", f"attempts end after {window:g} s, but {needs}; set backoff_max_duration='{needed}s'"


def _seconds(duration: str) -> float:
    """Return the value of a duration as Kubeflow's compiler writes it, such as 600s."""
    return float(duration.removesuffix("s"))


def _gpu(task: dict[str, Any], settings: dict[str, Any]) -> Problems:
    """Apply the rules for a task with a GPU."""
    media = {mount.get("mountPath"): mount.get("medium", "") for mount in settings.get("emptyDirMounts", [])}
    if "/dev/shm" not in media:
        yield "shm", "no mount at /dev/shm: processes share at most 64 MiB there; mount a volume of medium Memory"
    elif media["/dev/shm"] != "Memory":
        yield "shm", "the volume at /dev/shm is on a disk; give it the medium Memory"
    if not int(task.get("retryPolicy", {}).get("maxRetryCount", 0)):
        yield "retry", "no retries: a drained node ends the run; set at least one"
    if not settings.get("activeDeadlineSeconds"):
        yield "timeout", "no timeout: a pod that hangs keeps its GPU; set one"
