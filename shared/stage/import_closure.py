"""Find the files of this repository that a package depends on, without importing any of them.

The closure of a package holds its own modules, every module they import from the repository (also inside functions,
and the `__init__` of each package on the way), and the data files beside these modules. Imports for type checkers
alone (`if TYPE_CHECKING:`) do not count.
"""

# This runs whenever a stage starts, and pathlib takes three times as long:
# ruff: noqa: PTH112, PTH113, PTH118, PTH120, PTH123, PTH208

import ast
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

STAGE_PACKAGES = ("shared", "components")
"""Packages of the repository that a stage can import."""
NOT_DATA = (".py", ".pyc", ".md")
"""Endings of files that are no data: what reads them is no stage."""

_NAMES = "|".join(STAGE_PACKAGES)
_STATEMENT = re.compile(
    rf"""^[ \t]*(?:
    from[ \t]+(?P<module>\.+[\w.]*|(?:{_NAMES})\b[\w.]*)[ \t]+import[ \t]*(?P<names>\((?:[^)\#]|\#[^\n]*)*\)|[^\n]*)
    |import[ \t]+(?P<modules>[^\n]*)
    )""",
    re.MULTILINE | re.VERBOSE,
)
_COMMENT = re.compile(r"#[^\n]*")
_TYPE_CHECKING = re.compile(
    r"^([ \t]*)if (?:typing\.)?TYPE_CHECKING:[^\n]*\n(?:\1[ \t]+[^\n]*\n|[ \t]*\n)*", re.MULTILINE
)


def import_closure(root: Path, package: str) -> list[Path]:
    """Files that `package`, such as `components.ingest`, depends on below `root`, sorted."""
    top = str(root)
    waiting = [package, *_modules_of(top, package)]
    found: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        if name in found or (path := _file_of(top, name)) is None:
            continue
        found[name] = path
        waiting += [name.rpartition(".")[0]] if "." in name else []
        waiting += _imports(top, name, path)
    folders = {os.path.dirname(path) for path in found.values()} - {os.path.join(top, name) for name in STAGE_PACKAGES}
    data = [path for folder in folders for path in _data_files(folder)]
    return sorted(Path(path) for path in {*found.values(), *data})


@cache
def _file_of(root: str, module: str) -> str | None:
    """File of a module or package; None where the name is neither, such as that of a function."""
    base = os.path.join(root, *module.split("."))
    return next((path for path in (f"{base}.py", os.path.join(base, "__init__.py")) if os.path.isfile(path)), None)


def _modules_of(root: str, package: str) -> list[str]:
    """Names of the modules in a package's folder, those of subpackages not included."""
    folder = os.path.join(root, *package.split("."))
    return [f"{package}.{name[:-3]}" for name in os.listdir(folder) if name.endswith(".py")]


@cache
def _imports(root: str, module: str, path: str) -> tuple[str, ...]:
    """Names of the repository's modules that a module imports. Names of functions and classes may be among them."""
    with open(path, encoding="utf-8") as stream:
        text = stream.read()
    package = module if path.endswith("__init__.py") else module.rpartition(".")[0]
    names = []
    for imported, members in _statements(text):
        if imported.startswith("."):
            level = len(imported) - len(imported.lstrip("."))
            above = package.split(".")[: len(package.split(".")) - level + 1]
            imported = ".".join([*above, *filter(None, [imported.lstrip(".")])])
        names.append(imported)
        names += [f"{imported}.{member}" for member in members if _is_package(root, imported)]
    return tuple(name for name in names if name.partition(".")[0] in STAGE_PACKAGES)


@cache
def _is_package(root: str, name: str) -> bool:
    return os.path.isdir(os.path.join(root, *name.split(".")))


def _statements(text: str) -> Iterator[tuple[str, list[str]]]:
    """(module, names imported from it) of each import statement of a module's source."""
    parts = text.split('"""')
    if "'''" in text or len(parts) % 2 == 0:  # strings that the split does not understand
        yield from _parsed_statements(text)
        return
    code = '""'.join(parts[::2])  # the docstrings are the odd parts
    if "TYPE_CHECKING:" in code:
        code = _TYPE_CHECKING.sub("", code)
    code = code.replace("\\\n", " ")
    for match in _STATEMENT.finditer(code):
        if modules := match["modules"]:
            yield from ((name, []) for name in _split_names(modules))
        elif match["module"]:
            yield match["module"], _split_names(match["names"])


def _split_names(text: str) -> list[str]:
    """`(a, b as c)  # why` -> a, b."""
    words = _COMMENT.sub("", text).strip("() \t\n").split(",")
    return [word.split()[0] for word in words if word.strip()]


def _parsed_statements(text: str) -> Iterator[tuple[str, list[str]]]:
    """The same as `_statements`, for any source, by Python's own parser: forty times slower."""
    for node in _nodes(ast.parse(text).body):
        if isinstance(node, ast.Import):
            yield from ((item.name, []) for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), [item.name for item in node.names]


def _nodes(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING:`."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from _nodes(node.orelse)
        else:
            yield from _nodes(ast.iter_child_nodes(node))


def _data_files(folder: str) -> Iterator[str]:
    """Files beside modules that are no code, and those in subfolders that are no packages."""
    for entry in os.scandir(folder):
        if entry.name.startswith((".", "__pycache__")):
            continue
        if entry.is_dir():
            if not os.path.isfile(os.path.join(entry.path, "__init__.py")):
                yield from _data_files(entry.path)
        elif not entry.name.endswith(NOT_DATA):
            yield entry.path
