"""The stages that there are: their declarations, and the one function that runs them.

`run` is handed to whatever starts a stage, so that nothing in `shared` imports a stage by its name.
"""

import importlib
from pathlib import Path

from shared.stage.declaration import Result, Stage

HERE = Path(__file__).parent


def names() -> list[str]:
    """Name of every stage whose folder is here, in alphabetical order."""
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


def run(stage: Stage) -> Result:
    """Compute a stage: the `run` of its `main.py`, which may load numpy or torch. A worker process can import it."""
    result: Result = importlib.import_module(f"components.{stage.slug()}.main").run(stage)
    return result


def targets(stage: type[Stage]) -> list[str]:
    """Targets of `docker/Dockerfile` that a stage can run in."""
    return [target for target in (stage.image, stage.gpu_image) if target]
