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
_DRIVER = "-driver"
_UNKNOWN = "RUNTIME_STATE_UNSPECIFIED"


def follow(client: Any, run_id: str, host: str, paths: dict[str, str]) -> int:
    """Print a line for every change of a task until the run ends. Returns the exit code.

    paths: of `task_paths`: name of a task on the cluster -> what to call it.
    """
    shown: dict[str, str] = {}
    started = time.monotonic()
    while True:
        run = _run(client, run_id, host)
        for name, state in _changes(run, paths, shown):
            _print(f"{name}  {state}")
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


def _changes(run: Any, paths: dict[str, str], shown: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (task, state) of each task whose state is not the one in `shown`, which is updated.

    The server lists every step of the workflow, without its parent and without a reason of a failure: beside the
    tasks there are the run as a whole (`root`), the drivers, which prepare a task (`ingest-driver`), and the pods of
    all tasks under the same name (`executor`). Of these, only a driver that failed is shown: its task never starts.
    """
    details = getattr(run.run_details, "task_details", None) or []
    for task in sorted(details, key=lambda task: str(task.start_time or task.create_time or "")):
        name = task.display_name or ""
        if task.state in (None, _UNKNOWN, shown.get(name)):
            continue
        if name in paths:
            shown[name] = task.state
            yield paths[name], task.state.lower()
        elif name.removesuffix(_DRIVER) in paths and task.state == "FAILED":
            shown[name] = task.state
            yield paths[name.removesuffix(_DRIVER)], "failed before its container started; the UI has the driver's log"


def _print(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
