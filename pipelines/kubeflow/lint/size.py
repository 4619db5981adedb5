"""Rule for the size of a run: Argo keeps it in one object of Kubernetes, its Workflow, with all tasks and their states.

The sizes are estimates: the settings of the tasks as Kubeflow writes them into the object, and their states compressed.
"""

from pipelines.kubeflow.lint.finding import Problems

MAX_BYTES = 2**20
"""Argo gives up beyond it (`MAX_WORKFLOW_SIZE`); etcd itself stores 1.5 MiB."""
_TASK_BYTES = 6_500
"""A task with some twenty parameters."""
_FIXED_BYTES = 60_000


def too_many_tasks(number: int) -> Problems:
    """Check that a run with this number of containers fits. A round of the loop has six."""
    size = _FIXED_BYTES + number * _TASK_BYTES
    if size > MAX_BYTES:
        largest = (MAX_BYTES - _FIXED_BYTES) // _TASK_BYTES
        needs = f"{number} tasks need about {size / 2**20:.1f} MiB in the Workflow of a run, and Argo stops at 1 MiB"
        yield "size", f"{needs}; have at most {largest}, by fewer rounds"
