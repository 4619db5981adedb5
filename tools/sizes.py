"""Measure the code's sizes and find import cycles; exit with 1 where a limit is exceeded: `python tools/sizes.py`.

Limits: functions of at most 12 lines in the median and 30 in nine of ten, modules of at most 300 lines, at most 12
modules in a package of `shared` or `pipelines`, no import cycle. The lines of a function include its signature and its
docstring, but not the functions defined within it.
"""

import ast
import graphlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

import grimp

ROOT = Path(__file__).parents[1]
PACKAGES = ("components", "pipelines", "shared")
MAX_MEDIAN, MAX_P90 = 12, 30
"""Lines of a function."""
MAX_MODULE = 300
"""Lines of a module."""
MAX_MODULES = 12
"""Modules of a package of `shared` or `pipelines`, `__init__` not counted."""
SHOWN = 10
"""Longest functions that are listed."""


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and `file:line name` of every function and method in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield _lines(node) - _inner(node), f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"


def _lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _inner(node: ast.AST) -> int:
    """Lines of the outermost functions within `node`."""
    total = 0
    for child in ast.iter_child_nodes(node):
        total += _lines(child) if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else _inner(child)
    return total


def cycle() -> list[str]:
    """Modules that import one another in a circle; empty where there are none."""
    graph = grimp.build_graph(*PACKAGES)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def problems(files: list[Path], sizes: list[int]) -> Iterator[str]:
    """One line for each limit that is exceeded."""
    if (middle := median(sizes)) > MAX_MEDIAN:
        yield f"functions: the median is {middle:g} lines; at most {MAX_MEDIAN}"
    if (p90 := _p90(sizes)) > MAX_P90:
        yield f"functions: the 90th percentile is {p90:g} lines; at most {MAX_P90}"
    for path in files:
        if (length := len(path.read_text(encoding="utf-8").splitlines())) > MAX_MODULE:
            yield f"{path.relative_to(ROOT)}: {length} lines; at most {MAX_MODULE}"
    modules = Counter(path.parent.relative_to(ROOT) for path in files if path.name != "__init__.py")
    for package, count in sorted(modules.items()):
        if package.parts[0] != "components" and count > MAX_MODULES:
            yield f"{package}: {count} modules; at most {MAX_MODULES}"
    if found := cycle():
        yield f"import cycle: {' -> '.join(found)}"


def _p90(sizes: list[int]) -> float:
    return quantiles(sizes, n=10, method="inclusive")[-1]


def main() -> int:
    """Print the figures and the problems; 1 where there is a problem."""
    files = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    measured = sorted((found for path in files for found in functions(path)), reverse=True)
    sizes = [size for size, _ in measured]
    print(f"{len(files)} modules, {len(sizes)} functions; lines of a function:")
    print(f"median {median(sizes):g}, 90th percentile {_p90(sizes):g}, longest:")
    print("\n".join(f"{size:5} {where}" for size, where in measured[:SHOWN]))
    found = list(problems(files, sizes))
    print("\n".join(f"error: {problem}" for problem in found), file=sys.stderr, end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
