"""The documentation agrees with the code: the reference is up to date, links lead somewhere, commands can be parsed."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from components.registry import declaration, names
from pipelines.cli_parser import build_parser
from shared.stage.arguments import parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "k8s/README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands(page: Path, program: str) -> list[list[str]]:
    """Arguments of every command line in the page's `sh` blocks that starts with `program`."""
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", text(page), re.M | re.S)).replace("\\\n", " ")
    lines = [line for line in blocks.splitlines() if line.startswith(f"{program} ")]
    return [shlex.split(line.removeprefix(program), comments=True) for line in lines]


def settings(page: Path) -> list[tuple[str, str, str]]:
    """(stage or task, field, value) of every `--set KEY.FIELD=VALUE` on the page."""
    return re.findall(r"--set ([\w/-]+)\.(\w+)=([^\s`]+)", text(page))


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text(page), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_reference_is_up_to_date():
    tool = runpy.run_path(str(ROOT / "tools/generate_reference.py"))
    readme = text(ROOT / "README.md")
    assert text(ROOT / "docs/stages.md") == tool["reference"](), "run `python tools/generate_reference.py`"
    assert readme == tool["readme"](readme), "run `python tools/generate_reference.py`"
    assert sorted(re.findall(r"^\| \[(\w+)\]\(docs/stages.md#\1\)", readme, re.M)) == names()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(((?!https?:)[\w/.-]*)#?([\w-]*)\)", text(page)):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "tests/benchmarks/RESULTS.md"], ids=[*NAMES, "RESULTS.md"])
def test_files_that_are_named_exist(page):
    folders = "components|docker|docs|k8s|pipelines|requirements|shared|tests|tools"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", text(page)):
        assert "NAME" in path or "smooth" in path or (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_can_be_parsed(page):
    for words in commands(page, "cytoloom"):
        build_parser().parse_args(words)
    for name, *words in commands(page, "python -m components"):
        if words != ["--help"]:
            parse(declaration(name), words)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_settings_are_parameters_of_stages(page):
    for key, field, value in settings(page):
        stage = declaration(key.rpartition("/")[2].replace("-", "_"))
        assert field in stage.parameters(), f"{key}.{field}"
        if not value.isupper():  # MODEL, FILE: a place
            assert parse_value(stage, field, value) is not None


def parse_value(stage, field: str, value: str) -> object:
    needed = [word for name, port in stage.ports().items() if port.needed for word in (f"--{name}", f"{name}-path")]
    needed += [word for name, info in stage.parameters().items() if info.is_required() for word in (f"--{name}", "x")]
    return parse(stage, [*needed, f"--{field}", value]).parameters[field]
