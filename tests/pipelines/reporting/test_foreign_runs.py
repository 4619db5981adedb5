"""Runs that come from elsewhere: none of their pages shows a file from outside of the run folder."""

import shutil
from pathlib import Path
from urllib.parse import quote

import pytest
from ui_server import ask, serving

from pipelines.run_folder import record


@pytest.fixture(scope="module")
def outside(finished, tmp_path_factory) -> Path:
    """What no page may show: a whole run beside the folder of runs, with a mark in every file."""
    folder = tmp_path_factory.mktemp("hostile") / "outside"
    shutil.copytree(finished[0], folder)
    with (folder / "ingest/images/rejects.csv").open("a") as table:
        table.write("TOPSECRET,line\n")
    (folder / "pretrain/report.html").write_text("<svg class='plot'>TOPSECRET</svg>")
    (folder / "ingest/report.html").write_text("<svg class='plot'>TOPSECRET</svg>")
    return folder


def by_path(text: str):
    """The record names the folders of its artifacts elsewhere."""

    def change(run: Path, outside: Path) -> None:
        made = record.load(run)
        for task in made.tasks.values():
            for output in task.outputs.values():
                output.path = text.format(outside=outside) + "/" + output.path
        made.save(run)

    return change


def by_task(text: str):
    """The record gives its tasks names that lead elsewhere."""

    def change(run: Path, outside: Path) -> None:
        made = record.load(run)
        at = text.format(outside=outside)
        made.tasks = {f"{at}/{name}": task for name, task in made.tasks.items()}
        made.save(run)

    return change


def by_link(*paths: str):
    """Files or folders of the run are links."""

    def change(run: Path, outside: Path) -> None:
        for path in paths:
            place = run / path
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
            place.symlink_to(outside / path)

    return change


HOSTILE = {
    "absolute path": by_path("{outside}"),
    "path with dots": by_path("../../outside"),
    "absolute name": by_task("{outside}"),
    "name with dots": by_task("../../outside"),
    "linked tasks": by_link("ingest", "pretrain", "infer", "em-0", "em-1"),
    "linked artifacts": by_link("ingest/images", "ingest/labels", "infer/predictions", "em-1/cluster/clusters"),
    "linked indices": by_link("infer/predictions/index.jsonl", "infer/predictions/labelset.json"),
    "linked files": by_link(
        *("ingest/images/images-00000.tar", "ingest/images/rejects.csv", "ingest/report.html", "pretrain/report.html"),
        *("ingest/labels/labels-00000.tar", "infer/predictions/labels-00000.tar"),
    ),
}


@pytest.mark.parametrize("way", HOSTILE)
def test_a_run_that_names_what_is_outside_gets_none_of_it_shown(way, finished, outside):
    runs = outside.parent / f"runs of {way}"
    run = runs / "bad"
    shutil.copytree(finished[0], run)
    before = _images_of(runs)
    assert before["report"] and before["compare"]
    HOSTILE[way](run, outside)
    after = _images_of(runs)
    if "name" not in way:  # the artifacts are the run's own then
        assert after["report"] == after["compare"] == 0, "images came from the outside"
    with serving(runs) as made:
        for path in ("", "files/", "files/ingest/", "files/infer/predictions/"):
            assert b"TOPSECRET" not in ask(made, f"/runs/bad/{path}")[2]
        for inner in outside.rglob("*"):
            name = inner.relative_to(outside).as_posix()
            if (run / name).resolve().is_relative_to(outside):
                assert ask(made, f"/runs/bad/files/{quote(name)}")[0] == 404, name
        for path in (outside / "pretrain/report.html", "../../outside/pretrain/report.html"):
            assert ask(made, f"/runs/bad/files/{path}")[0] == 404


def _images_of(runs: Path) -> dict[str, int]:
    """Images on the page of the run `bad`, and on the one that compares it with itself."""
    with serving(runs) as made:
        report, both = (ask(made, path) for path in ("/runs/bad/", "/compare?a=bad&b=bad"))
    assert report[0] == both[0] == 200 and b"TOPSECRET" not in report[2] + both[2]
    return {"report": report[2].count(b"data:image"), "compare": both[2].count(b"data:image")}
