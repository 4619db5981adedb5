"""The reference page is what the declarations say."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_reference_of_the_stages_is_up_to_date():
    made = runpy.run_path(str(ROOT / "tools/generate_reference.py"))["reference"]()
    stands = (ROOT / "docs/stages.md").read_text(encoding="utf-8")
    assert stands == made, "run `python tools/generate_reference.py`"
    for path in (ROOT / "components").glob("*/component.py"):
        assert f"## {path.parent.name}\n" in stands


def test_the_readme_lists_every_stage_as_it_is_documented():
    reference, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/stages.md", "README.md"))
    listed = dict(re.findall(r"^- \[(\w+)\]\(#\w+\): (.*)$", reference, re.M))
    assert dict(re.findall(r"^\| \[(\w+)\]\(docs/stages.md#\w+\) \| (.*) \|$", readme, re.M)) == listed
    for path in re.findall(r"\]\(([\w/.]+)(?:#\w+)?\)", readme):
        assert (ROOT / path).is_file(), path
