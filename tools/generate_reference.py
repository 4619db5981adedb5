"""Write `docs/stages.md`, the reference of the stages, from their declarations: `python tools/generate_reference.py`.

A test holds the page up to date.
"""

import inspect
import json
from pathlib import Path

from components.registry import declaration, names
from shared.stage.declaration import Stage
from shared.stage.wire import limits, parameter_type

PAGE = Path(__file__).parents[1] / "docs" / "stages.md"
HEAD = """# The stages

Made from the declarations by `python tools/generate_reference.py`; do not edit. Every field is also an argument of
`python -m components STAGE`, and a parameter a key of a run's config file.

Every stage has two optional outputs besides: `report`, a page, and `metrics`, numbers as JSON.
"""


def reference() -> str:
    """The whole page."""
    stages = [declaration(name) for name in names()]
    contents = "\n".join(f"- [{stage.slug()}](#{stage.slug()}): {_summary(stage)}" for stage in stages)
    return "\n".join([HEAD, contents, "", *(_section(stage) for stage in stages)])


def _summary(stage: type[Stage]) -> str:
    return inspect.cleandoc(stage.__doc__ or "").splitlines()[0]


def _section(stage: type[Stage]) -> str:
    lines = [f"## {stage.slug()}", "", inspect.cleandoc(stage.__doc__ or ""), "", f"Image: `{stage.image}`.", ""]
    lines += ["| input, output | type | |", "|---|---|---|"]
    for name, port in stage.ports().items():
        if name not in Stage.model_fields:
            kind = port.kind.__name__ + (" (output parameter)" if port.is_value else "")
            kind += "" if port.needed or port.is_value else " (optional)"
            lines.append(f"| {port.direction} `{name}` | {kind} | {_text(stage.model_fields[name].description)} |")
    lines += ["", "| parameter | type | default | |", "|---|---|---|---|"]
    for name, info in stage.parameters().items():
        default = "required" if info.is_required() else f"`{json.dumps(info.get_default(call_default_factory=True))}`"
        of = parameter_type(info)
        number = [f"{of.number.__name__} {limits(info)}".strip()] if of.number else []
        kind = ", ".join([*of.words, *number]) or f"{of.wire.__name__} {limits(info)}"
        lines.append(f"| `{name}` | {kind.strip()} | {default} | {_text(info.description)} |")
    return "\n".join([*lines, ""])


def _text(description: str | None) -> str:
    return " ".join((description or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
