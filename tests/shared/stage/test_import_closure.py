"""Import closures: of every stage against Python's own parser, and of small packages with every form of import."""

import ast
from pathlib import Path

import pytest

from components.registry import names
from shared.stage.import_closure import import_closure

ROOT = Path(__file__).parents[3]


def reference_modules(package: str) -> set[Path]:
    """The closure's modules, found the plain way: parse every file, follow every import statement that can run."""
    waiting = [*sorted((ROOT / package.replace(".", "/")).glob("*.py"))]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        inits = [folder / "__init__.py" for folder in path.parents if folder.is_relative_to(ROOT) and folder != ROOT]
        waiting += [init for init in inits if init.is_file()]
        visitor = Imports(path)
        visitor.visit(ast.parse(path.read_text()))
        for name in visitor.names:
            base = ROOT / name.replace(".", "/")
            waiting += [file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()]
    return found


class Imports(ast.NodeVisitor):
    """Dotted names that a file imports from the repository."""

    def __init__(self, path: Path) -> None:
        self.package = path.parent.relative_to(ROOT).parts
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for other in node.orelse:
                self.visit(other)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.names.update(item.name for item in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        above = self.package[: len(self.package) - node.level + 1] if node.level else ()
        module = ".".join([*above, *filter(None, [node.module])])
        self.names.update([module, *(f"{module}.{item.name}" for item in node.names)])


@pytest.mark.parametrize("stage", names())
def test_the_closure_of_every_stage_is_what_the_parser_finds(stage: str) -> None:
    found = import_closure(ROOT, f"components.{stage}")
    assert {path for path in found if path.suffix == ".py"} == reference_modules(f"components.{stage}")
    assert found == sorted(set(found))


FILES = {
    "components/__init__.py": "",
    "components/one/__init__.py": "",
    "components/one/main.py": '''"""Docstring.

from shared.in_docstring import x
"""
import os, shared.plain
from shared.parentheses import (  # a comment
    a,  # another, with a ")"
    b as c,
)
from shared import package
from shared.other import member, function
from . import beside
from .beside import name
if TYPE_CHECKING:
    import shared.type_only

    from shared.type_only import T
from shared.continued \\
    import x
# from shared.in_comment import x
text = "import shared.in_string"


def later():
    from shared.inside import x
''',
    "components/one/beside.py": "",
    "components/one/unused.py": "from ..one import unused_import\nimport shared.by_unused",
    "components/one/table.json": "{}",
    "components/one/templates/page.html": "",
    "components/one/notes.md": "",
    "components/one/.hidden": "",
    "components/two/__init__.py": "import shared.of_two",
    "components/two/data.csv": "",
    "shared/other/__init__.py": "from shared.of_init import x",
    "shared/other/member.py": "'''from shared.in_docstring import x'''\nfrom shared.after_single_quotes import x",
    "shared/other/not_imported.py": "",
    "shared/other/data.csv": "",
    "shared/package/__init__.py": "",
}
SHARED = ("plain", "parentheses", "type_only", "inside", "by_unused", "of_two", "of_init", "after_single_quotes")
FOUND = (
    *("components/__init__.py", "components/one/__init__.py", "components/one/beside.py", "components/one/main.py"),
    *("components/one/table.json", "components/one/templates/page.html", "components/one/unused.py"),
    *("shared/after_single_quotes.py", "shared/by_unused.py", "shared/continued.py", "shared/inside.py"),
    *("shared/of_init.py", "shared/other/__init__.py", "shared/other/data.csv", "shared/other/member.py"),
    *("shared/package/__init__.py", "shared/parentheses.py", "shared/plain.py"),
)


def test_every_form_of_import_is_followed(tmp_path: Path) -> None:
    for name in (*SHARED, "in_docstring", "in_comment", "in_string", "continued"):
        FILES[f"shared/{name}.py"] = ""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = [path.relative_to(tmp_path).as_posix() for path in import_closure(tmp_path, "components.one")]
    assert found == list(FOUND)
