"""The reference page is what the declarations say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_reference_of_the_stages_is_up_to_date():
    made = runpy.run_path(str(ROOT / "docs/generate.py"))["reference"]()
    stands = (ROOT / "docs/stages.md").read_text(encoding="utf-8")
    assert stands == made, "run `python docs/generate.py`"
    for path in (ROOT / "components").glob("*/component.py"):
        assert f"## {path.parent.name}\n" in stands
