"""Rules for names: Kubernetes truncates or refuses a name that is too long or has the wrong characters (RFC 1123)."""

import re
from typing import Any

from pipelines.kubeflow.lint.finding import Problems

_MAX_LABEL_LENGTH = 63
"""Characters of a label's value and of a pod's host name."""
_ADDED_LENGTH = len("-xxxxx-system-container-impl-0000000000")
"""Characters that Argo and Kubeflow append to a pipeline's name in the names of its pods."""
_DNS_LABEL, _DNS_SUBDOMAIN = 63, 253
"""Maximum length of the two kinds of object names."""
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_REFERENCES = {
    ("pvcMount", "constant"): _DNS_LABEL,  # Kubeflow names the pod's volume after the claim
    ("emptyDirMounts", "volumeName"): _DNS_LABEL,
    ("secretAsVolume", "secretName"): _DNS_LABEL,  # and after the secret
    ("configMapAsVolume", "configMapName"): _DNS_LABEL,
    ("secretAsEnv", "secretName"): _DNS_SUBDOMAIN,
    ("configMapAsEnv", "configMapName"): _DNS_SUBDOMAIN,
    ("imagePullSecret", "secretName"): _DNS_SUBDOMAIN,
    ("genericEphemeralVolume", "volumeName"): _DNS_LABEL,
    ("genericEphemeralVolume", "storageClassName"): _DNS_SUBDOMAIN,
}
"""(list in a task's settings, field of its items) -> maximum length of the name."""
_VOLUME_PARAMETERS = {"pvc_name": _DNS_LABEL, "storage_class_name": _DNS_SUBDOMAIN, "volume_name": _DNS_SUBDOMAIN}
"""Parameter of a task that creates a volume -> maximum length of the name."""


def pipeline_name(name: str) -> Problems:
    """The pipeline's name is a part of each pod's name."""
    if len(name) + _ADDED_LENGTH > _MAX_LABEL_LENGTH:
        longest = _MAX_LABEL_LENGTH - _ADDED_LENGTH
        yield "name", f"the pipeline's name is too long; use at most {longest} characters"


def task_name(key: str, where: str, used: dict[str, str]) -> Problems:
    """A task's key, its name on the cluster, becomes a label of its pods, and the UI looks for its pages by it.

    where: path of the task; used: keys of the tasks before it -> their paths, to which this one is added.
    """
    if len(key) > _MAX_LABEL_LENGTH:
        yield "name", f"{key!r} is too long for a label; use at most {_MAX_LABEL_LENGTH} characters"
    first = used.setdefault(key, where)
    if first != where:
        yield "task-name", f"named {key!r} like {first}: the UI would show the pages of one for both; rename one"


def referenced_objects(settings: dict[str, Any]) -> Problems:
    """Check the names of the claims, secrets and config maps in a task's settings."""
    for (group, field), max_length in _REFERENCES.items():
        for item in settings.get(group, []):
            yield from _object_name(field, item.get(field), max_length)


def created_volume(task: dict[str, Any]) -> Problems:
    """Check the names that a task passes to Kubernetes to create a volume."""
    given = task.get("inputs", {}).get("parameters", {})
    for name in given.keys() & _VOLUME_PARAMETERS.keys():
        constant = given[name].get("runtimeValue", {}).get("constant")
        yield from _object_name(name, constant, _VOLUME_PARAMETERS[name])


def _object_name(field: str, name: Any, max_length: int) -> Problems:
    if not isinstance(name, str) or not name or name.startswith("{{$"):
        return
    if len(name) > max_length:
        yield "name", f"{field} {name!r} is too long; use at most {max_length} characters"
    elif not _DNS_NAME.fullmatch(name) or (max_length == _DNS_LABEL and "." in name):
        allowed = "'-'" if max_length == _DNS_LABEL else "'-' and '.'"
        yield "name", f"{field} {name!r}: not a name in Kubernetes; use lower-case letters, digits and inner {allowed}"
