"""Refuse a server of Kubeflow Pipelines that is too old for a graph.

Only the UI names a version, in its answer to `/apis/v2beta1/healthz`; it passes all other requests to the API server.
"""

import re
import sys
from pathlib import Path
from typing import Any

from pipelines.ir.documents import load_documents, task_settings
from shared.system.errors import UserError

Version = tuple[int, int, int]

OLDEST: Version = (2, 15, 0)
"""2.14 refuses to create the run, and 2.5 forgets that keys of a secret are optional."""
SECURITY_CONTEXT: Version = (2, 16, 0)
"""The first one that knows the user of a task; an older one refuses the run."""
_TAG = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def version_in(tag: str) -> Version | None:
    """Return the version that a text begins with.

    >>> version_in("2.15.0-rc.1")
    (2, 15, 0)
    """
    match = _TAG.match(tag)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def in_words(version: Version) -> str:
    """(2, 15, 0) -> `2.15.0`."""
    return ".".join(map(str, version))


def server_version(health: dict[str, Any]) -> Version | None:
    """Return the version in an answer to `healthz`; None if it names no release."""
    return version_in(str(health.get("frontendTagName") or ""))


def refuse_old_server(version: Version | None, host: str, compiled: Path) -> None:
    """Raise UserError if a server is too old for a compiled pipeline; print a warning if its version is unknown."""
    _, platform = load_documents(compiled)
    declares_user = any("securityContext" in settings for settings in task_settings(platform).values())
    needed = SECURITY_CONTEXT if declares_user else OLDEST
    if version is None:
        print(
            f"warning: --host {host}: the version of Kubeflow Pipelines is unknown, as this is not its UI or not a "
            f"release; {in_words(needed)} or newer is needed",
            file=sys.stderr,
        )
    elif version < OLDEST:
        raise UserError(
            f"--host {host}: Kubeflow Pipelines {in_words(version)} is too old; it would refuse the run, or pods would "
            f"wait for keys that a secret need not have. Install {in_words(OLDEST)} or newer"
        )
    elif version < needed:
        raise UserError(
            f"--host {host}: Kubeflow Pipelines {in_words(version)} cannot declare the user of a task; compile with "
            f"`kubeflow: {in_words(version)}` in the profile"
        )
