"""Follow a run on a cluster: print each change of a task's state until the run ends."""

import sys
import time
from collections.abc import Iterator
from typing import Any

from pipelines.kubeflow.client import explained
from shared.system.errors import UserError

POLL = 5.0
"""s between two requests for the state of a run."""
MAX_FAILURES = 60
"""Failed requests in a row after which following stops; the run itself continues."""
EXIT_CODES = {"SUCCEEDED": 0, "SKIPPED": 0, "FAILED": 1, "CANCELED": 1}
"""Final state of a run -> exit code. SKIPPED: all outputs existed already."""


def follow(client: Any, run_id: str, host: str) -> int:
    """Print a line for every change of a task until the run ends. Returns the exit code."""
    shown: dict[str, str] = {}
    started = time.monotonic()
    while True:
        run = _run(client, run_id, host)
        for name, state, reason in _changes(run, shown):
            _print(f"{name}  {state.lower()}{reason}")
        if run.state in EXIT_CODES:
            seconds = time.monotonic() - started
            _print(f"{run.state.lower()} after {seconds / 60:.0f} min" if seconds > 90 else run.state.lower())
            return EXIT_CODES[run.state]
        time.sleep(POLL)


def _run(client: Any, run_id: str, host: str) -> Any:
    """Request the run, again after a failure. Raises UserError after MAX_FAILURES."""
    for failures in range(1, MAX_FAILURES + 1):
        try:
            with explained(host):
                return client.get_run(run_id)
        except UserError as error:
            if failures == MAX_FAILURES:
                raise
            if failures == 1:
                _print(f"{error}; trying again, the run itself continues")
            time.sleep(POLL)
    raise AssertionError("unreachable")


def _changes(run: Any, shown: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield (task, state, reason) of each task whose state is not the one in `shown`, which is updated.

    A task of a nested pipeline has the name of that pipeline before its own: `em-1/cluster`.
    """
    details = getattr(run.run_details, "task_details", None) or []
    names = {task.task_id: task.display_name for task in details}
    parents = {task.task_id: task.parent_task_id for task in details}
    for task in sorted(details, key=lambda task: str(task.start_time or task.create_time or "")):
        if not task.state or task.state == shown.get(task.task_id) or not parents.get(task.task_id):
            continue  # the run as a whole is a task as well, the one without a parent
        shown[task.task_id] = task.state
        parent = parents[task.task_id]
        prefix = f"{names[parent]}/" if parents.get(parent) else ""
        message = getattr(task.error, "message", "") or ""
        yield prefix + task.display_name, task.state, f": {message}" if message else ""


def _print(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
