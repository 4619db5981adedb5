"""`python -m components` lists the stages; `python -m components STAGE ...` runs one.

In an image, `CYTOLOOM_TARGET` is the target of `docker/Dockerfile` it was built from: only stages for it are there.
"""

import importlib
import json
import os
import sys
from pathlib import Path

from shared.arguments import suggestion
from shared.runner import main
from shared.stage import Stage
from shared.version import code_version

HERE = Path(__file__).parent


def names() -> list[str]:
    """Every stage whose folder is here, in alphabetical order."""
    return sorted(path.parent.name for path in HERE.glob("*/component.py"))


def declaration(name: str) -> type[Stage]:
    """The one Stage subclass that `components/NAME/component.py` defines."""
    module = importlib.import_module(f"components.{name}.component")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Stage) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__file__}: one Stage subclass is expected, {len(found)} found")
    return found[0]


def targets(stage: type[Stage]) -> list[str]:
    """Targets of `docker/Dockerfile` that a stage can run in."""
    return [target for target in (stage.image, stage.gpu_image) if target]


def command_line(argv: list[str]) -> int:
    """List, or run one stage; returns the exit code."""
    target = os.environ.get("CYTOLOOM_TARGET")
    held = [name for name in names() if not target or target in targets(declaration(name))]
    if argv[:1] == ["--versions"]:  # for the executor: what an image holds
        print(json.dumps({name: code_version(name) for name in held}))
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: python -m components STAGE [--help | --field value ...]\n\nstages:")
        for name in held:
            summary = (declaration(name).__doc__ or "").strip().splitlines()[0]
            print(f"  {name:18} {summary}")
        return 0
    if argv[0] in names() and argv[0] not in held:
        where = " or ".join(targets(declaration(argv[0])))
        print(f"error: {argv[0]} needs the image {where}; this one, {target}, has {', '.join(held)}", file=sys.stderr)
        return 2
    if argv[0] not in names():
        near = suggestion(argv[0], names())
        print(f"error: no stage {argv[0]!r}{near} (there are {', '.join(names())})", file=sys.stderr)
        return 2
    return main(declaration(argv[0]), argv[1:])


if __name__ == "__main__":
    sys.exit(command_line(sys.argv[1:]))
