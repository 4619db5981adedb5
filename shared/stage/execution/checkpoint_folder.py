"""Give a running stage a folder for its checkpoints, found again by the next run of the same task."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from shared.stage.execution.output_folder import CHECKPOINTS_FOLDER
from shared.stage.execution.places import is_remote, output_folders
from shared.stage.execution.scratch import scratch_folder
from shared.stage.invocation import Invocation
from shared.system.log import log
from shared.system.user_folders import user_cache
from shared.training import checkpoint_location


@contextlib.contextmanager
def checkpoint_folder(invocation: Invocation, key: str) -> Iterator[None]:
    """Set the folder for checkpoints. It is removed when the stage succeeds and kept when it fails.

    key: `task_key` of the task.
    """
    root = os.environ.get("CYTOLOOM_CHECKPOINTS", "").rstrip("/")
    if is_remote(root):
        with scratch_folder(os.environ.get("CYTOLOOM_TMP")) as folder, _checkpoints_in(folder, f"{root}/{key}"):
            yield
        return
    folder = _local_folder(invocation, root, key)
    try:
        with _checkpoints_in(folder):
            yield
    finally:
        _remove_empty(folder)
        if not root:
            _remove_empty(folder.parent)


@contextlib.contextmanager
def _checkpoints_in(folder: Path, remote: str = "") -> Iterator[None]:
    """Set the folder, and the uri that its checkpoints are copied to; they are removed unless something fails."""
    try:
        checkpoint_location.set_location(folder, remote)
    except OSError as error:  # such as a volume that another user owns: no reason not to compute
        log.warning("CYTOLOOM_CHECKPOINTS: %s: %s; going on without checkpoints", folder, error.strerror)
        checkpoint_location.set_location(None)
    yield
    checkpoint_location.remove()


def _local_folder(invocation: Invocation, root: str, key: str) -> Path:
    """Return the folder in this file system: in `CYTOLOOM_CHECKPOINTS`, beside the outputs, or in the user's cache."""
    if root:
        return Path(root) / key
    parents = [output.parent for output in output_folders(invocation).values()]
    return (parents[0] / CHECKPOINTS_FOLDER if parents else user_cache() / "checkpoints") / key


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
