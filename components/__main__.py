"""`python -m components` lists the stages; `python -m components STAGE ...` runs one.

In an image, `CYTOLOOM_TARGET` is the target of `docker/Dockerfile` it was built from. The image lists and runs only the
stages of that target.
"""

import json
import os
import sys

from components.registry import declaration, names, run, targets
from shared.stage.runner import main
from shared.stage.version import code_version
from shared.system.suggestions import did_you_mean


def command_line(argv: list[str]) -> int:
    """List the stages, or run one; returns the exit code."""
    target = os.environ.get("CYTOLOOM_TARGET")
    held = [name for name in names() if not target or target in targets(declaration(name))]
    if argv[:1] == ["--versions"]:  # for the executor: what an image holds
        print(json.dumps({name: code_version(declaration(name)) for name in held}))
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        _list(held)
        return 0
    name = argv[0]
    if name not in names():
        near = did_you_mean(name, names())
        print(f"error: {name}: no such stage{near}; the stages are {', '.join(names())}", file=sys.stderr)
        return 2
    if name not in held:
        where = " or ".join(targets(declaration(name)))
        print(f"error: {name}: runs in the image {where}, this is {target}; it has {', '.join(held)}", file=sys.stderr)
        return 2
    return main(declaration(name), argv[1:], run)


def _list(held: list[str]) -> None:
    print("usage: python -m components STAGE [--help | --field value ...]\n\nstages:")
    for name in held:
        summary = (declaration(name).__doc__ or "").strip().splitlines()[0]
        print(f"  {name:18} {summary}")


if __name__ == "__main__":
    sys.exit(command_line(sys.argv[1:]))
