"""Resources that each stage requests: retries, timeout, GPU, CPU and memory, one row per stage in `RESOURCES`.

To raise a limit, such as the retry limit, for every cluster, change the row here (`retries=3`). For one cluster, write
it in a profile: `--profile lab.yaml` with `stages: {pretrain: {retries: 5}}`.

Retries are for pods that vanish, because a node is drained or memory runs out: training then continues from its
checkpoint. The executor on one machine uses only `gpu` and `retries`. Sizes are Kubernetes quantities. Processes that
share a batch need /dev/shm: without a mount, a container has 64 MiB of it.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from components.registry import names
from pipelines.ir.yaml_file import read_yaml
from pipelines.kubeflow.quantities import Duration, Quantity, QuantityOrNone, amount
from pipelines.kubeflow.server_version import OLDEST, SECURITY_CONTEXT, in_words, version_in
from shared.system.errors import UserError
from shared.system.suggestions import alternatives

SECRET_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_SESSION_TOKEN",
)
"""Keys of the secret, which are also the environment variables that `shared.store` reads."""
IMAGE_USER = 10001
"""User of the stages' images."""
_HOUR = 3600
_SHM = "2Gi"
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")


def _label(text: str) -> str:
    if not _LABEL.fullmatch(text):
        raise ValueError("a label's value has at most 63 letters, digits, '-', '_' and '.', the outer ones no signs")
    return text


def _release(text: Any) -> Any:
    found = version_in(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("a version of three numbers is expected, such as 2.17.0")
    if found < OLDEST:
        raise ValueError(f"too old; {in_words(OLDEST)} or newer is needed")
    return text


Labels = dict[str, Annotated[str, AfterValidator(_label)]]
Release = Annotated[str, BeforeValidator(_release)]


class Toleration(BaseModel):
    """A taint of nodes that a stage may run on nevertheless."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str | None = None
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None


class Resources(BaseModel):
    """What one stage requests."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    gpu: NonNegativeInt = 0
    """Number of GPUs. Training stages divide a batch between several."""
    gpu_type: str = "nvidia.com/gpu"
    """Name of the resource: a whole GPU, or a slice such as `nvidia.com/mig-1g.10gb`."""
    cpu: Quantity = "2"
    memory: Quantity = "4Gi"
    cpu_request: QuantityOrNone = ""
    """Empty: a quarter of a core, so that stages also fit on small clusters."""
    memory_request: QuantityOrNone = ""
    """Empty: the limit. Kubernetes first evicts pods that use more than they requested."""
    shm: QuantityOrNone = ""
    """Size of /dev/shm. Empty: 2 GiB with a GPU, else the 64 MiB of any container."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Maximum number of attempts after the first one."""
    backoff: Duration = "30s"
    """Pause before the first retry. Each pause is twice as long as the one before."""
    timeout: PositiveInt = 6 * _HOUR
    """Maximum running time of a pod, s."""
    caching: bool = True
    """Whether Kubeflow may use the outputs of an equal task of an earlier run."""
    node_selector: Labels = {}
    """Labels that the node must have."""
    tolerations: tuple[Toleration, ...] = ()
    labels: Labels = {}
    """Labels of the pod, such as `kueue.x-k8s.io/queue-name`."""
    storage: QuantityOrNone = ""
    """Size of a volume of the task's own at /s3, where Kubeflow puts inputs and outputs that are at s3:// uris. Its pod
    needs an `fsGroup`; see k8s/README.md. Empty: the disk of the node, without a limit."""
    storage_class: str = ""
    """StorageClass of this volume. Empty: the cluster's default."""

    @field_validator("cpu_request", "memory_request")
    @classmethod
    def _within_limit(cls, text: str, info: ValidationInfo) -> str:
        limit = info.data.get(str(info.field_name).removesuffix("_request"), "")
        if text and limit and amount(text) > amount(limit):
            raise ValueError(f"more than the limit {limit}; Kubernetes refuses such a pod")
        return text


TRAINING = ("pretrain", "train_segmentor", "train_classifier", "train_detector")
"""Stages that write checkpoints."""
_GPU = Resources(gpu=1, memory="16Gi", cpu="4", shm=_SHM)
_TRAINING = Resources(gpu=1, memory="16Gi", cpu="8", shm="8Gi", retries=3, timeout=24 * _HOUR)
RESOURCES = {
    **dict.fromkeys(TRAINING, _TRAINING),
    "ingest": Resources(cpu="4", memory="4Gi"),
    "sample_images": Resources(cpu="4", memory="4Gi"),
    "extract_features": _GPU,
    "cluster": Resources(cpu="8", memory="16Gi"),
    "refine_masks": Resources(gpu=1, memory="16Gi", cpu="8", shm=_SHM),
    "select_model": _GPU,
    "import_model": Resources(caching=False),  # Kubeflow's key would be the uri alone, whatever lies there by now
    "evaluate": _GPU,
    "infer": _GPU,
    "export_model": _GPU,
}


class Profile(BaseModel):
    """The properties of one cluster: a file for `--profile`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kubeflow: Release = "2.15.0"
    """Version of Kubeflow Pipelines on the cluster, or an older one."""
    run_as_user: Literal["auto", "image"] | Annotated[int, Field(gt=0, strict=True)] = "auto"
    """User that a pod declares, as the Pod Security Standard `restricted` asks for. auto: 10001, the images' own user,
    from Kubeflow 2.16.0 on, which is the first version that can; image: none is declared."""
    service_account: str = ""
    """Account of the tasks, unless `--service-account` names one. Its image pull secrets are those of the pods. Empty:
    the cluster's."""
    secret: str = ""
    """Name of a secret with the keys `SECRET_KEYS`, for stages that access S3 themselves. Empty: none."""
    cache: str = ""
    """Name of a PersistentVolumeClaim for what tasks fetch from a store themselves: ingest, and tasks that are given
    weights or a model by uri. Empty: none."""
    checkpoints: str = ""
    """Name of a PersistentVolumeClaim for training checkpoints, from which a retried pod continues. Empty: none."""
    cpu_only: bool = False
    """Request no GPU for any stage."""
    all: dict[str, Any] = {}
    """Fields of `Resources` for every stage."""
    gpu_stages: dict[str, Any] = {}
    """Fields for the stages that request a GPU, such as tolerations of GPU nodes. They win over `all`."""
    stages: dict[str, dict[str, Any]] = {}
    """Stage -> fields of `Resources`. They win over all others."""

    @field_validator("run_as_user")
    @classmethod
    def _within_version(cls, user: str | int, info: ValidationInfo) -> str | int:
        given = info.data.get("kubeflow", "")
        if isinstance(user, int) and given and not _declares_users(given):
            raise ValueError(f"Kubeflow {given} cannot declare it, {in_words(SECURITY_CONTEXT)} can; see `kubeflow`")
        return user

    @property
    def user(self) -> int:
        """User that the pods declare; 0: none."""
        if isinstance(self.run_as_user, int):
            return self.run_as_user
        return IMAGE_USER if self.run_as_user == "auto" and _declares_users(self.kubeflow) else 0

    @cached_property
    def rows(self) -> dict[str, Resources]:
        """Stage -> what it requests on this cluster."""
        found = {}
        for stage in names():
            own = RESOURCES.get(stage, Resources())
            given = {**own.model_dump(), **self.all, **self.stages.get(stage, {})}
            if self.cpu_only:
                given |= {"gpu": 0, "shm": ""}
            if given["gpu"]:
                given |= {**self.gpu_stages, **self.stages.get(stage, {})}
                given["shm"] = given["shm"] or _SHM
            found[stage] = Resources(**given)
        return found

    def row(self, stage: str) -> Resources:
        """Return what a stage requests; the defaults of `Resources` for a stage without a row."""
        return self.rows.get(stage) or RESOURCES.get(stage) or Resources()


def _declares_users(release: str) -> bool:
    return (version_in(release) or OLDEST) >= SECURITY_CONTEXT


PLAIN = Profile()
"""The profile without `--profile`: nothing that a cluster may lack."""


def load_profile(path: Path | None, *, cpu_only: bool = False, caching: bool = True) -> Profile:
    """Read a profile. `cpu_only=True` and `caching=False` win over it. Raises UserError with the file and the field."""
    given = {} if path is None else _read(path)
    if cpu_only:
        given["cpu_only"] = True
    try:
        profile = Profile(**given)
        if not caching:
            stages = {stage: {**fields, "caching": False} for stage, fields in profile.stages.items()}
            profile = profile.model_copy(update={"all": {**profile.all, "caching": False}, "stages": stages})
        for stage in profile.stages:
            if stage not in names():
                raise UserError(f"{path}: stages.{stage}: no such stage{alternatives(stage, names())}")
        _ = profile.rows
    except ValidationError as error:
        item = error.errors()[0]
        field = ".".join(str(part) for part in item["loc"])
        raise UserError(f"{path}: {field}: {item['msg']} (given: {item['input']!r})") from error
    return profile


def _read(path: Path) -> dict[str, Any]:
    documents = read_yaml(path, f"--profile: {path}")
    given = (documents[0] if documents else None) or {}
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise UserError(f"--profile: {path}: not a mapping; write `{{stages: {{pretrain: {{gpu: 2}}}}}}`")
    return given
