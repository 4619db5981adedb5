"""A stage with two outputs that fails on request, for the tests of the runner."""

COMPONENT = '''"""Declaration of `probe`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from shared.artifacts.kinds import ClassificationMetrics, ImageSet, LabelSet
from shared.stage.declaration import In, Out, Stage


class Probe(Stage):
    """Label images without objects, or fail in the way of `mode`."""

    image: ClassVar[str] = "torch"

    images: In[ImageSet]
    """Images."""
    first: Out[LabelSet]
    """Labels without a label image."""
    second: Out[LabelSet]
    """The same labels."""
    curve: Out[ClassificationMetrics]
    """Fixed values."""
    count: Out[int]
    """Number of images."""
    name: Out[str]
    """The value of `text`."""
    mode: Literal[
        "fine", "raise", "fill", "hide", "wait", "outofmemory", "delete", "skip", "nan", "pause", "load"
    ] = "fine"
    """What to do."""
    text: str = ""
    """A note of the labels."""
    number: int = Field(3, ge=1, le=9, multiple_of=3)
    """A number with limits."""
    limit: Annotated[int, Field(ge=2)] | Literal["auto"] = "auto"
    """A number or a word."""
    share: float = Field(0.5, gt=0, lt=1)
    """A share."""
    flag: bool = False
    """A truth value."""
    parts: list[int] = Field(default=[1, 2])
    """A list."""
'''

MAIN = '''"""Fail on request."""

import json
import os
import time
from pathlib import Path

from components.probe.component import Probe
from shared.training import checkpoint_location
from shared.metrics.classification import Classification
from shared.system.errors import UserError
from shared.reporting.page import Page
from shared.stage.declaration import Result

MADE_UP = {
    "labels": ["background", "cell"],
    "confusion": [[90, 5], [2, 30]],
    "roc": [(0, 0, 1), (0.25, 0.875, 0.5), (1, 1, 0)],
}


def write(folder: Path, index: list[dict], text: str) -> None:
    """A LabelSet without label images; `text` is among its notes."""
    empty = {"kind": "instances", "members": {}}
    rows = [{name: row[name] for name in ("key", "height", "width")} | empty for row in index]
    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
    (folder / "labelset.json").write_text(json.dumps({"origin": "truth", "notes": {"text": text}}))


def run(stage: Probe) -> Result:
    """Write an empty label of each image twice; what happens between the two is `stage.mode`."""
    index = [json.loads(line) for line in (stage.images / "index.jsonl").open()]
    assert stage.first.is_dir() and not list(stage.first.iterdir())
    write(stage.first, index, stage.text)
    folder = checkpoint_location.folder()
    resumed = folder is not None and (folder / "step").is_file()
    if folder is not None:
        (folder / "step").write_text("1")
    if stage.mode == "raise":
        raise RuntimeError("an unforeseen error")
    if stage.mode == "outofmemory":
        bytearray(2**60)
    if stage.mode == "wait" and not resumed:
        print("waiting", flush=True)
        time.sleep(60)
    if stage.mode == "pause":
        print("waiting", flush=True)
        input()
    if stage.mode == "load":
        import numpy, threadpoolctl, torch

        print(sorted({(pool["user_api"], pool["num_threads"]) for pool in threadpoolctl.threadpool_info()}))
    if stage.mode == "fill":
        (stage.second / "big").write_bytes(bytes(2**24))
    if stage.mode == "hide":  # like a library that wraps the error in its own
        try:
            (stage.second / "big").write_bytes(bytes(2**24))
        except OSError as error:
            raise ValueError("could not serialise") from error
    if stage.mode == "delete":
        os.symlink("/etc/passwd", stage.second / "link")
    write(stage.second, index, stage.text)
    page = Page("probe")
    page.text(f"<{stage.text}>")
    return Result(
        metrics={"images": len(index), "resumed": float(resumed)},
        values={"count": len(index), "name": stage.text},
        classification=None if stage.mode == "skip" else Classification(**MADE_UP),
        skipped="nothing to do" if stage.mode == "skip" else None,
        page=page,
    )
'''

FILES = {"__init__.py": '"""Stage `probe`."""\n', "component.py": COMPONENT, "main.py": MAIN}
