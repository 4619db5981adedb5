"""What each stage asks of a cluster: one row a stage in `RESOURCES`, and what a cluster of one's own has beside it.

The local executor heeds only `gpu` and `retries`. Sizes are Kubernetes quantities. A stage whose data loaders share
batches between processes needs /dev/shm; 64 MiB, what a container gets otherwise, is too little for it. Retries are for
pods that vanish (a node drained, memory run out): training goes on from its checkpoint then.
"""

import re
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from components.registry import names
from shared.system.errors import UserError
from shared.system.suggestions import alternatives

QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|[kKMGTPE]i?)?")
DURATION = re.compile(r"\d+[smh]")
SECRET_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_SESSION_TOKEN",
)
"""Keys of the secret, and what they are called in a stage's environment; `shared.store` reads them there."""
CACHE_PATH, CHECKPOINTS_PATH = "/cache", "/checkpoints"
CPU_REQUEST = "250m"
HOUR = 3600
SHM = "2Gi"


def amount(quantity: str) -> Decimal:
    """The number that a Kubernetes quantity stands for: bytes, or cores."""
    match = QUANTITY.fullmatch(quantity)
    if match is None:
        raise ValueError("a Kubernetes quantity is expected, such as 500m, 16Gi or 4")
    number, unit = match.groups(default="")
    if unit in ("", "m"):
        return Decimal(number) * (Decimal("0.001") if unit else 1)
    return Decimal(number) * (1024 if unit.endswith("i") else 1000) ** ("KMGTPE".index(unit[0].upper()) + 1)


def _quantity(text: str) -> str:
    amount(text)
    return text


def _duration(text: str) -> str:
    if not DURATION.fullmatch(text):
        raise ValueError("a duration is expected, such as 30s, 5m or 1h")
    return text


Quantity = Annotated[str, AfterValidator(_quantity)]
QuantityOrNone = Annotated[str, AfterValidator(lambda text: text and _quantity(text))]
Duration = Annotated[str, AfterValidator(_duration)]


class Toleration(BaseModel):
    """Taint of nodes that a stage may run on all the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str | None = None
    effect: Literal["NoExecute", "NoSchedule", "PreferNoSchedule"] | None = None


class Resources(BaseModel):
    """One row."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    gpu: NonNegativeInt = 0
    """GPUs; a training stage shares its batch between several."""
    gpu_type: str = "nvidia.com/gpu"
    """Name of the resource: of a whole GPU, or a slice such as `nvidia.com/mig-1g.10gb`."""
    cpu: Quantity = "2"
    memory: Quantity = "4Gi"
    cpu_request: QuantityOrNone = ""
    """Empty: a quarter of a core, so that stages fit on small clusters as well."""
    memory_request: QuantityOrNone = ""
    """Empty: as much as the limit; a pod that was promised less is the first to be evicted."""
    shm: QuantityOrNone = ""
    """Size of /dev/shm; empty: 2 GiB beside a GPU, else the container's own."""
    retries: NonNegativeInt = 2
    backoff: Duration = "30s"
    """Pause before the first retry; each is twice as long as the one before, up to ten minutes."""
    timeout: PositiveInt = 6 * HOUR
    """s, after which a pod counts as hung."""
    caching: bool = True
    """Whether Kubeflow may take over what an equal task of an earlier run made."""
    node_selector: dict[str, str] = {}
    """Labels that a node must have."""
    tolerations: tuple[Toleration, ...] = ()

    @field_validator("cpu_request", "memory_request")
    @classmethod
    def _within_limit(cls, text: str, info: ValidationInfo) -> str:
        limit = info.data.get(str(info.field_name).removesuffix("_request"), "")
        if text and limit and amount(text) > amount(limit):
            raise ValueError(f"more than the limit, {limit}: Kubernetes lets no such pod in")
        return text


def _gpu(cpu: str = "4", shm: str = SHM, retries: int = 2, timeout: int = 6 * HOUR) -> Resources:
    return Resources(gpu=1, memory="16Gi", cpu=cpu, shm=shm, retries=retries, timeout=timeout)


RESOURCES = {
    "ingest": Resources(cpu="4", memory="4Gi"),
    "pretrain": _gpu(cpu="8", shm="8Gi", retries=3, timeout=24 * HOUR),
    "extract_features": _gpu(),
    "cluster": Resources(cpu="8", memory="16Gi"),
    "refine_masks": Resources(cpu="8", memory="8Gi"),
    "train_segmentor": _gpu(cpu="8", shm="8Gi", retries=3, timeout=24 * HOUR),
    "select_model": _gpu(),
    "evaluate": _gpu(),
    "infer": _gpu(),
    "export_model": _gpu(),
}


class Profile(BaseModel):
    """What one cluster has and wants: a file for `--profile`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    secret: str = ""
    """Name of a secret with the keys of `SECRET_KEYS`, for stages that go to S3 themselves; empty: none."""
    cache: str = ""
    """Name of a PersistentVolumeClaim that keeps fetched artifacts; empty: none."""
    checkpoints: str = ""
    """Name of a PersistentVolumeClaim that training checkpoints are kept on, so that a retried pod goes on."""
    cpu_only: bool = False
    """No stage asks for a GPU."""
    all: dict[str, Any] = {}
    """Fields of `Resources`, for every stage."""
    gpu_stages: dict[str, Any] = {}
    """The same for the stages that ask for a GPU alone, such as tolerations of GPU nodes; they win over `all`."""
    stages: dict[str, dict[str, Any]] = {}
    """Stage -> fields of `Resources`; they win over all others."""

    @cached_property
    def rows(self) -> dict[str, Resources]:
        """The table as this cluster has it."""
        found = {}
        for stage in names():
            own = RESOURCES.get(stage, Resources())
            given = {**own.model_dump(), **self.all, **self.stages.get(stage, {})}
            if self.cpu_only:
                given |= {"gpu": 0, "shm": ""}
            if given["gpu"]:
                given |= {**self.gpu_stages, **self.stages.get(stage, {})}
                given["shm"] = given["shm"] or SHM
            found[stage] = Resources(**given)
        return found

    def row(self, stage: str) -> Resources:
        """What the stage of this slug asks for; the least where the table does not have it."""
        return self.rows.get(stage) or RESOURCES.get(stage) or Resources()


PLAIN = Profile()
"""Nothing but what every cluster has: what a graph is compiled for without `--profile`."""


def load(path: Path | None, *, cpu_only: bool = False, caching: bool = True) -> Profile:
    """Read a profile; raises UserError naming the file and the field that is wrong.

    cpu_only, and no caching, win over what it says.
    """
    given: Any = {}
    if path is not None:
        try:
            given = yaml.safe_load(path.read_text()) or {}
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
        if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
            raise UserError(f"{path}: a mapping is expected: `{{stages: {{pretrain: {{gpu: 2}}}}}}`")
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


def apply(task: Any, stage: str, profile: Profile = PLAIN) -> Any:
    """Set the resources of `stage` (its slug) on a pipeline task, and return the task."""
    from kfp import kubernetes

    row = profile.row(stage)
    task.set_memory_limit(row.memory).set_memory_request(row.memory_request or row.memory)
    task.set_cpu_limit(row.cpu).set_cpu_request(row.cpu_request or min(CPU_REQUEST, row.cpu, key=amount))
    task.set_retry(row.retries, backoff_duration=row.backoff, backoff_factor=2.0, backoff_max_duration="600s")
    task.set_caching_options(row.caching)
    kubernetes.set_timeout(task, row.timeout)
    if row.gpu:  # a limit without a type does nothing
        task.set_accelerator_type(row.gpu_type).set_accelerator_limit(row.gpu)
    if row.shm:
        kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium="Memory", size_limit=row.shm)
    for key, value in row.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in row.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    if profile.secret:
        kubernetes.use_secret_as_env(task, profile.secret, {key: key for key in SECRET_KEYS}, optional=True)
    for claim, path, variable in (
        (profile.cache, CACHE_PATH, "CYTOLOOM_CACHE"),
        (profile.checkpoints, CHECKPOINTS_PATH, "CYTOLOOM_CHECKPOINTS"),
    ):
        if claim:
            kubernetes.mount_pvc(task, claim, path)
            task.set_env_variable(variable, path)
    return task
