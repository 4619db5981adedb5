"""Write the reference of the stages from their declarations: `python tools/generate_reference.py`.

It is `docs/stages.md`, and the table of stages in `README.md`. A test compares both with the declarations.
"""

import inspect
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from components.registry import declaration, names  # noqa: E402
from shared.stage.declaration import Stage  # noqa: E402
from shared.stage.wire import limits, parameter_type  # noqa: E402

PAGE, README = ROOT / "docs/stages.md", ROOT / "README.md"
HEAD = """# The stages

Generated from the declarations by `python tools/generate_reference.py`; do not edit. Every field is an argument of
`python -m components STAGE`. A parameter is also a key of a run's config file.

Every stage has two more optional outputs: `report`, a page, and `metrics`, numbers as JSON.
"""
ROW = re.compile(r"^\| \[(\w+)\]\(docs/stages\.md#\w+\) \|.*\n", re.M)
"""Line of a stage in the README's table."""


def reference() -> str:
    """Return the text of `docs/stages.md`."""
    stages = [declaration(name) for name in names()]
    contents = "\n".join(f"- [{stage.slug()}](#{stage.slug()}): {_summary(stage)}" for stage in stages)
    return "\n".join([HEAD, contents, "", *(_section(stage) for stage in stages)])


def readme(text: str) -> str:
    """Return the README with its table of stages renewed: rows stay in their order, new stages come last."""
    listed = [name for name in ROW.findall(text) if name in names()]
    order = [*listed, *(name for name in names() if name not in listed)]
    rows = "".join(f"| [{name}](docs/stages.md#{name}) | {_summary(declaration(name))} |\n" for name in order)
    before, after = text[: _start(text)], ROW.sub("", text[_start(text) :])
    return before + rows + after


def _start(text: str) -> int:
    found = ROW.search(text)
    if found is None:
        raise ValueError(f"{README}: no table of stages")
    return found.start()


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
        declared = parameter_type(info)
        number = [f"{declared.number.__name__} {limits(info)}".strip()] if declared.number else []
        kind = ", ".join([*declared.words, *number]) or f"{declared.wire.__name__} {limits(info)}"
        lines.append(f"| `{name}` | {kind.strip()} | {default} | {_text(info.description)} |")
    return "\n".join([*lines, ""])


def _text(description: str | None) -> str:
    return " ".join((description or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
