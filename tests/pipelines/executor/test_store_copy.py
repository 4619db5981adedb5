"""`cytoloom run --store`: a run's outputs in a bucket of a real S3 server, and never in place of another run's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import graphs_for_tests as graphs
import pytest

from pipelines.executor import store_copy
from pipelines.executor.cache import FinishedOutput, FinishedTask
from shared import store
from shared.artifacts.kinds import Files
from shared.artifacts.manifest import seal
from shared.system.errors import UserError

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    return graphs.chain(tmp_path_factory.mktemp("graph") / "chain.yaml")


def run(chain: Path, folder: Path, name: str, uri: str, *more: object) -> subprocess.CompletedProcess:
    (folder / "history").mkdir(exist_ok=True)
    words = ["run", chain, "--param", f"history={folder / 'history'}", "--out", folder / name, "--store", uri, *more]
    command = [sys.executable, "-m", "pipelines", *map(str, words), "--no-cache"]
    return subprocess.run(command, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, timeout=120)


def names(uri: str) -> list[str]:
    return [name for name, _, _ in store.listing(uri)]


def test_everything_is_sent_and_another_runs_outputs_are_kept(chain, s3, tmp_path) -> None:
    uri = f"{s3}/runs/chain"
    first = run(chain, tmp_path, "first", f"{uri}/")
    assert first.returncode == 0, first.stderr
    tasks = ("beside", "first", "second", "third")
    assert names(uri) == sorted(["report.html", "run.json", *(f"{task}/out/text.txt" for task in tasks)])
    told = json.loads(store.get(f"{uri}/run.json"))
    assert told["state"] == "done" and told == json.loads((tmp_path / "first/run.json").read_text())
    before = store.get(f"{uri}/second/out/text.txt")

    again = run(chain, tmp_path, "first", uri, "--param", "text=other")
    assert again.returncode == 0, again.stderr
    assert store.get(f"{uri}/second/out/text.txt") != before, "the same run goes on, with other settings"

    began = (tmp_path / "history/events.jsonl").read_bytes()
    other = run(chain, tmp_path, "other", uri)
    assert other.returncode == 1
    assert other.stderr.startswith(f"error: --store {uri}: holds another run; give another prefix, or --overwr")
    assert (tmp_path / "history/events.jsonl").read_bytes() == began, "refused before anything runs"
    assert run(chain, tmp_path, "other", uri, "--overwrite").returncode == 0
    assert json.loads(store.get(f"{uri}/run.json"))["identity"] != told["identity"]
    assert run(chain, tmp_path, "first", uri).returncode == 1, "the prefix is the other's now"


@pytest.mark.parametrize("text", [b"{}", b"[1]", b"not JSON", b'{"identity": ""}'])
def test_a_record_that_tells_nothing_is_another_runs(s3, text: bytes) -> None:
    store.put(f"{s3}/untold/run.json", text)
    with pytest.raises(UserError, match="holds another run"):
        store_copy.refuse_others(f"{s3}/untold", "mine")


def test_artifacts_of_nobody_known_are_kept(s3, tmp_path) -> None:
    store_copy.refuse_others(f"{s3}/nothing-yet", "mine")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.tar").write_text("a")
    seal(tmp_path / "images", Files)
    store.send(tmp_path / "images", f"{s3}/somebodys/ingest/images")
    with pytest.raises(UserError, match=r"an artifact \(ingest/images/artifact\.json\) of unknown origin"):
        store_copy.refuse_others(f"{s3}/somebodys", "mine")


def test_pages_and_metrics_go_beside_the_artifacts(s3, tmp_path) -> None:
    folder = tmp_path / "ingest"
    (folder / "images").mkdir(parents=True)
    (folder / "images/a.tar").write_text("a")
    digest = seal(folder / "images", Files).digest
    (folder / "report.html").write_text("<p>page")
    (folder / "metrics.json").write_text("{}")
    titles = {"images": "system.Dataset", "report.html": "system.HTML", "metrics.json": "system.Metrics"}
    made = {n: FinishedOutput(path=n, kind=title, schema_title=title, digest=digest) for n, title in titles.items()}
    store_copy.send_outputs(FinishedTask(key="k", seconds=1, outputs=made), folder, f"{s3}/pages/ingest")
    assert names(f"{s3}/pages/ingest") == ["images/a.tar", "images/artifact.json", "metrics.json", "report.html"]
    assert store.get(f"{s3}/pages/ingest/report.html") == b"<p>page"
