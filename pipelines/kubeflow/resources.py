"""Resources that each stage requests: retries, timeout, GPU, CPU and memory, one row per stage in `RESOURCES`.

To raise a limit, such as the retry limit, for every cluster, change the row here (`retries=3`). For one cluster, write
it in a profile: `--profile lab.yaml` with `stages: {pretrain: {retries: 5}}`.

Retries are for pods that vanish, because a node is drained or memory runs out: training then continues from its
checkpoint. The executor on one machine uses only `gpu` and `retries`. Sizes are Kubernetes quantities. Processes that
share a batch need /dev/shm: without a mount, a container has 64 MiB of it.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from components.registry import names
from pipelines.kubeflow.quantities import Duration, Quantity, QuantityOrNone, amount, seconds
from pipelines.kubeflow.retries import BACKOFF_FACTOR, retry_window
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
CACHE_PATH, CHECKPOINTS_PATH = "/cache", "/checkpoints"
_CPU_REQUEST = "250m"
_HOUR = 3600
_SHM = "2Gi"


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
    node_selector: dict[str, str] = {}
    """Labels that the node must have."""
    tolerations: tuple[Toleration, ...] = ()

    @field_validator("cpu_request", "memory_request")
    @classmethod
    def _within_limit(cls, text: str, info: ValidationInfo) -> str:
        limit = info.data.get(str(info.field_name).removesuffix("_request"), "")
        if text and limit and amount(text) > amount(limit):
            raise ValueError(f"more than the limit {limit}; Kubernetes refuses such a pod")
        return text


_GPU = Resources(gpu=1, memory="16Gi", cpu="4", shm=_SHM)
_TRAINING = Resources(gpu=1, memory="16Gi", cpu="8", shm="8Gi", retries=3, timeout=24 * _HOUR)
RESOURCES = {
    "ingest": Resources(cpu="4", memory="4Gi"),
    "pretrain": _TRAINING,
    "extract_features": _GPU,
    "cluster": Resources(cpu="8", memory="16Gi"),
    "refine_masks": Resources(cpu="8", memory="8Gi"),
    "train_segmentor": _TRAINING,
    "train_classifier": _TRAINING,
    "train_detector": _TRAINING,
    "select_model": _GPU,
    "import_model": Resources(caching=False),  # Kubeflow's key would be the uri alone, whatever lies there by now
    "evaluate": _GPU,
    "infer": _GPU,
    "export_model": _GPU,
}


class Profile(BaseModel):
    """The properties of one cluster: a file for `--profile`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    secret: str = ""
    """Name of a secret with the keys `SECRET_KEYS`, for stages that access S3 themselves. Empty: none."""
    cache: str = ""
    """Name of a PersistentVolumeClaim for fetched artifacts. Empty: none."""
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
    try:
        given = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise UserError(f"--profile: {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--profile: {path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
        raise UserError(f"--profile: {path}: not a mapping; write `{{stages: {{pretrain: {{gpu: 2}}}}}}`")
    return given


def apply(task: Any, stage: str, profile: Profile = PLAIN) -> Any:
    """Set the resources of `stage` (its slug) on a pipeline task and return the task."""
    from kfp import kubernetes

    row = profile.row(stage)
    task.set_memory_limit(row.memory).set_memory_request(row.memory_request or row.memory)
    task.set_cpu_limit(row.cpu).set_cpu_request(row.cpu_request or min(_CPU_REQUEST, row.cpu, key=amount))
    _set_retries(task, row)
    task.set_caching_options(row.caching)
    kubernetes.set_timeout(task, row.timeout)
    if row.gpu:  # a limit without a type requests nothing
        task.set_accelerator_type(row.gpu_type).set_accelerator_limit(row.gpu)
    if row.shm:
        kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium="Memory", size_limit=row.shm)
    for key, value in row.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in row.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    if profile.secret:
        kubernetes.use_secret_as_env(task, profile.secret, {key: key for key in SECRET_KEYS}, optional=True)
    _mount(task, profile.cache, CACHE_PATH, "CYTOLOOM_CACHE")
    _mount(task, profile.checkpoints, CHECKPOINTS_PATH, "CYTOLOOM_CHECKPOINTS")
    return task


def _set_retries(task: Any, row: Resources) -> None:
    """Set the number of retries, the pauses before them, and the window that all attempts together must fit in."""
    pause = seconds(row.backoff)
    window = retry_window(row.retries, row.timeout, pause)
    pauses = {"backoff_duration": f"{pause}s", "backoff_factor": float(BACKOFF_FACTOR)}
    task.set_retry(row.retries, **pauses, backoff_max_duration=f"{window}s")


def _mount(task: Any, claim: str, path: str, variable: str) -> None:
    """Mount a claim at `path` and name the path in an environment variable; nothing if there is no claim."""
    from kfp import kubernetes

    if claim:
        kubernetes.mount_pvc(task, claim, path)
        task.set_env_variable(variable, path)
