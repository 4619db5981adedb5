"""What each stage asks of a cluster: one row a stage; the defaults of `Resources` where it has none.

The local executor heeds only `gpu` and `retries`. memory and shm are Kubernetes quantities. A stage whose data
loaders share batches between processes needs /dev/shm; 64 MiB, what a container gets otherwise, is too little for it.
retries are for pods that vanish (a node drained, memory run out): training goes on from its checkpoint then.
timeout: seconds after which a pod counts as hung; 0: never.
"""

from dataclasses import dataclass
from typing import Any

from kfp import kubernetes


@dataclass(frozen=True)
class Resources:
    """One row."""

    gpu: bool = False
    memory: str = "4Gi"
    cpu: str = "2"
    shm: str = ""
    """Size of /dev/shm; empty: the container's own."""
    retries: int = 2
    timeout: int = 0
    """s."""


RESOURCES = {
    "ingest": Resources(memory="4Gi", cpu="4"),
    "pretrain": Resources(gpu=True, memory="16Gi", cpu="8", shm="8Gi", retries=3),
    "extract_features": Resources(gpu=True, memory="16Gi", cpu="4", shm="2Gi"),
    "cluster": Resources(memory="16Gi", cpu="8"),
    "refine_masks": Resources(memory="8Gi", cpu="8"),
    "train_segmentor": Resources(gpu=True, memory="16Gi", cpu="8", shm="8Gi", retries=3),
    "gate": Resources(gpu=True, memory="16Gi", cpu="4", shm="2Gi"),
    "evaluate": Resources(gpu=True, memory="16Gi", cpu="4", shm="2Gi"),
    "infer": Resources(gpu=True, memory="16Gi", cpu="4", shm="2Gi"),
}


def apply(task: Any, stage: str) -> Any:
    """Set the resources of `stage` (its slug) on a pipeline task, and return the task."""
    row = RESOURCES.get(stage, Resources())
    task.set_memory_limit(row.memory).set_cpu_limit(row.cpu).set_retry(row.retries)
    if row.gpu:  # a limit without a type does nothing
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
    if row.shm:
        kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium="Memory", size_limit=row.shm)
    if row.timeout:
        kubernetes.set_timeout(task, row.timeout)
    return task
