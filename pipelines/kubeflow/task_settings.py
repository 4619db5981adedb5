"""Set on a task of a pipeline what its stage requests and what the profile of the cluster names."""

from typing import Any

from pipelines.kubeflow.quantities import amount, seconds
from pipelines.kubeflow.resources import PLAIN, SECRET_KEYS, TRAINING, Profile, Resources
from pipelines.kubeflow.retries import BACKOFF_FACTOR, retry_window

CACHE_PATH, CHECKPOINTS_PATH = "/cache", "/checkpoints"
ARTIFACTS_PATH = "/s3"
"""Where Kubeflow puts the inputs and outputs of a task whose artifacts are in an S3 store."""
_CPU_REQUEST = "250m"


def apply_settings(task: Any, stage: str, profile: Profile = PLAIN, *, reads_store: bool = False) -> Any:
    """Set the resources of `stage` (its slug) on a pipeline task and return the task.

    reads_store: whether the task fetches something itself, besides the artifacts that Kubeflow brings.
    """
    row = profile.row(stage)
    task.set_memory_limit(row.memory).set_memory_request(row.memory_request or row.memory)
    task.set_cpu_limit(row.cpu).set_cpu_request(row.cpu_request or min(_CPU_REQUEST, row.cpu, key=amount))
    if row.gpu:  # a limit without a type requests nothing
        task.set_accelerator_type(row.gpu_type).set_accelerator_limit(row.gpu)
    task.set_caching_options(row.caching)
    _set_attempts(task, row)
    _set_volumes(task, row)
    _set_pod(task, row, profile)
    _mount(task, profile.cache if reads_store else "", CACHE_PATH, "CYTOLOOM_CACHE")
    _mount(task, profile.checkpoints if stage in TRAINING else "", CHECKPOINTS_PATH, "CYTOLOOM_CHECKPOINTS")
    return task


def _set_attempts(task: Any, row: Resources) -> None:
    """Set the limits of each attempt and of all of them: number, running time, pauses, and the window they fit in."""
    from kfp import kubernetes

    kubernetes.set_timeout(task, row.timeout)
    pause = seconds(row.backoff)
    window = retry_window(row.retries, row.timeout, pause)
    pauses = {"backoff_duration": f"{pause}s", "backoff_factor": float(BACKOFF_FACTOR)}
    task.set_retry(row.retries, **pauses, backoff_max_duration=f"{window}s")


def _set_volumes(task: Any, row: Resources) -> None:
    """Mount the volumes that live as long as the pod."""
    from kfp import kubernetes

    if row.shm:
        kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium="Memory", size_limit=row.shm)
    if row.storage:  # in place of the launcher's emptyDir, which has no limit of size
        kubernetes.add_ephemeral_volume(
            task,
            volume_name="artifacts",
            mount_path=ARTIFACTS_PATH,
            access_modes=["ReadWriteOnce"],
            size=row.storage,
            storage_class_name=row.storage_class or None,
        )


def _set_pod(task: Any, row: Resources, profile: Profile) -> None:
    """Set nodes, labels, user and secret of the pod."""
    from kfp import kubernetes

    for key, value in row.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in row.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump())
    for key, value in row.labels.items():
        kubernetes.add_pod_label(task, key, value)
    if profile.user:
        kubernetes.set_security_context(task, run_as_user=profile.user, run_as_non_root=True)
    if profile.secret:
        kubernetes.use_secret_as_env(task, profile.secret, {key: key for key in SECRET_KEYS}, optional=True)


def _mount(task: Any, claim: str, path: str, variable: str) -> None:
    """Mount a claim at `path` and name the path in an environment variable; nothing if there is no claim."""
    from kfp import kubernetes

    if claim:
        kubernetes.mount_pvc(task, claim, path)
        task.set_env_variable(variable, path)
