"""List the stages with `python -m components`, or run one with `python -m components STAGE ...`.

In an image, `CYTOLOOM_TARGET` is the target of `docker/Dockerfile` that it was built from. The image lists and runs
only the stages of that target.
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
    available = [name for name in names() if not target or target in targets(declaration(name))]
    if argv[:1] == ["--versions"]:  # the executor asks an image for them
        print(json.dumps({name: code_version(declaration(name)) for name in available}))
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        _list(available)
        return 0
    name = argv[0]
    if name not in names():
        near = did_you_mean(name, names())
        print(f"error: {name}: no such stage{near}; the stages are {', '.join(names())}", file=sys.stderr)
        return 2
    if name not in available:
        image = " or ".join(targets(declaration(name)))
        print(
            f"error: {name}: not in this image, {target}; use the image {image}. This one runs {', '.join(available)}",
            file=sys.stderr,
        )
        return 2
    return main(declaration(name), argv[1:], run)


def _list(available: list[str]) -> None:
    print("usage: python -m components STAGE [--help | --field value ...]\n\nstages:")
    for name in available:
        summary = (declaration(name).__doc__ or "").strip().splitlines()[0]
        print(f"  {name:18} {summary}")


if __name__ == "__main__":
    sys.exit(command_line(sys.argv[1:]))
