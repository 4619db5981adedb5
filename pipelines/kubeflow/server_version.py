"""Refuse a server of Kubeflow Pipelines that is too old for a graph.

Only the UI names a version, in its answer to `/apis/v2beta1/healthz`; it passes all other requests to the API server.
"""

import re
import sys
from typing import Any

from shared.system.errors import UserError

Version = tuple[int, int, int]

OLDEST: Version = (2, 15, 0)
"""2.14 refuses to create the run, and 2.5 forgets that keys of a secret are optional."""
_TAG = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")


def server_version(health: dict[str, Any]) -> Version | None:
    """Return the version in an answer to `healthz`; None if it names no release.

    >>> server_version({"frontendTagName": "2.15.0-rc.1"})
    (2, 15, 0)
    """
    match = _TAG.match(str(health.get("frontendTagName") or ""))
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def refuse_old_server(version: Version | None, host: str) -> None:
    """Raise UserError for a server that is too old; print a warning if its version is unknown."""
    if version is None:
        print(
            f"warning: --host {host}: the version of Kubeflow Pipelines is unknown, as this is not its UI or not a "
            f"release; {_text(OLDEST)} or newer is needed",
            file=sys.stderr,
        )
    elif version < OLDEST:
        raise UserError(
            f"--host {host}: Kubeflow Pipelines {_text(version)} is too old; it would refuse the run, or pods would "
            f"wait for keys that a secret need not have. Install {_text(OLDEST)} or newer"
        )


def _text(version: Version) -> str:
    return ".".join(map(str, version))
