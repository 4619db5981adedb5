"""Find the stages: their declarations, and the function that runs them.

What starts a stage is given `run`, so that nothing in `shared` imports a stage by name.
"""

import importlib
from pathlib import Path

from shared.stage.declaration import Result, Stage

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Return the name of every stage, which is its folder's, in alphabetical order."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/component.py"))


def declaration(name: str) -> type[Stage]:
    """Return the one Stage subclass of `components/NAME/component.py`. Raises TypeError where there is not one."""
    module = importlib.import_module(f"components.{name}.component")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Stage) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__file__}: {len(found)} subclasses of Stage; define one")
    return found[0]


def run(stage: Stage) -> Result:
    """Compute a stage by `run` of its `main.py`, which may load numpy or torch. Worker processes can import this."""
    result: Result = importlib.import_module(f"components.{stage.slug()}.main").run(stage)
    return result


def targets(stage: type[Stage]) -> list[str]:
    """Return the targets of `docker/Dockerfile` that a stage can run in."""
    return [target for target in (stage.image, stage.gpu_image) if target]
