"""The executor on one machine: order, cache, failures and kills. All by the real command line."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import graphs_for_tests as graphs
import pytest
from kfp import dsl

from pipelines.run_folder import record

ROOT = Path(__file__).parents[3]


class Bench:
    """A folder with a history of what ran, and the command line on it."""

    def __init__(self, folder: Path, graph: Path) -> None:
        self.folder, self.graph = folder, graph
        self.history, self.out = folder / "history", folder / "run"
        self.history.mkdir()

    def words(self, *more: object) -> list[str]:
        command = [sys.executable, "-m", "pipelines", "run", self.graph, "--param", f"history={self.history}"]
        return [str(word) for word in (*command, "--out", self.out, *more)]

    def run(self, *more: object) -> subprocess.CompletedProcess:
        return subprocess.run(self.words(*more), cwd=ROOT, env=self.env(), capture_output=True, text=True, timeout=120)

    def start(self, *more: object) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(self.words(*more), cwd=ROOT, env=self.env(), **pipes)

    def env(self) -> dict[str, str]:
        return {**os.environ, "CYTOLOOM_CACHE": str(self.folder / "cache")}

    def events(self, kind: str = "start") -> list[dict]:
        log = self.history / "events.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def ran(self) -> list[str]:
        return sorted(event["task"] for event in self.events())

    def record(self) -> record.RunRecord:
        return record.load(self.out)

    def text(self, task: str) -> str:
        return (self.out / task / "out/text.txt").read_text()


def cache_of(bench: Bench) -> list[int]:
    """Bytes of every finished task in its cache."""
    kept = [finished.parent for finished in (bench.folder / "cache").glob("tasks/*/*/.task.json")]
    return [sum(file.stat().st_size for file in task.rglob("*") if file.is_file()) for task in kept]


def until(condition, seconds: float = 60) -> None:
    """Wait for what must come; a test that waits in vain has failed."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    return graphs.chain(tmp_path_factory.mktemp("graph") / "chain.yaml")


@pytest.fixture
def bench(tmp_path, chain) -> Bench:
    return Bench(tmp_path, chain)


def graph_bench(tmp_path: Path, pipeline) -> Bench:
    return Bench(tmp_path, graphs.compiled(pipeline, tmp_path / "graph.yaml"))


ALL = ["beside", "first", "second", "third"]


def test_artifacts_and_values_reach_the_tasks_that_need_them(bench):
    done = bench.run("--param", "text=xyz")
    assert done.returncode == 0, done.stderr
    assert bench.ran() == ALL
    assert bench.text("third") == "-xyzxyz"
    made = bench.record()
    assert made.state == "done" and {task.state for task in made.tasks.values()} == {"done"}
    assert made.tasks["second"].parameters["size"] == 3, "first's output parameter"
    assert {name: task.fed for name, task in made.tasks.items() if task.fed} == {"second": ["size"]}
    assert made.tasks["third"].inputs["a"].digest == made.tasks["second"].outputs["out"].digest != ""


def test_a_second_run_computes_nothing_and_a_third_elsewhere_takes_it_from_the_cache(bench):
    assert bench.run().returncode == 0
    assert bench.run().returncode == 0
    assert bench.ran() == ALL
    assert {task.origin for task in bench.record().tasks.values()} == {"run folder"}
    first, bench.out = bench.text("third"), bench.folder / "elsewhere"
    assert bench.run().returncode == 0
    assert bench.ran() == ALL
    assert {task.origin for task in bench.record().tasks.values()} == {"cache"}
    assert bench.text("third") == first


def test_a_changed_parameter_runs_what_depends_on_it_alone(bench):
    assert bench.run().returncode == 0
    assert bench.run("--param", "text=other").returncode == 0
    assert bench.ran() == sorted([*ALL, "first", "second", "third"])
    assert bench.text("third") == "-otherother"


def test_without_the_cache_another_folder_runs_everything(bench):
    assert bench.run("--no-cache").returncode == 0
    bench.out = bench.folder / "elsewhere"
    assert bench.run("--no-cache").returncode == 0
    assert bench.ran() == sorted(ALL * 2)
    assert not (bench.folder / "cache").exists()


def test_the_cache_stays_below_its_size_and_loses_what_was_used_longest_ago(bench, monkeypatch):
    assert bench.run().returncode == 0
    limit = sum(cache_of(bench)) + 100
    assert len(cache_of(bench)) == len(ALL)
    monkeypatch.setenv("CYTOLOOM_CACHE_GB", str(limit * 1e-9))
    bench.out = bench.folder / "elsewhere"
    done = bench.run("--param", "text=other")
    assert done.returncode == 0 and "held more than" in done.stderr, "three tasks were computed anew"
    assert 0 < sum(cache_of(bench)) <= limit
    bench.out = bench.folder / "again"
    assert bench.run("--param", "text=other").returncode == 0
    origins = {name: task.origin for name, task in bench.record().tasks.items()}
    assert origins["third"] == "cache", "it was made last"
    monkeypatch.setenv("CYTOLOOM_CACHE_GB", "0")
    assert bench.run("--from", "first").returncode == 0
    assert not cache_of(bench)


@pytest.mark.parametrize("size", ["many", "-1", "nan"])
def test_a_size_of_the_cache_that_is_none_is_refused(bench, monkeypatch, size):
    monkeypatch.setenv("CYTOLOOM_CACHE_GB", size)
    done = bench.run()
    assert done.returncode == 1 and f"error: CYTOLOOM_CACHE_GB={size}: not a size" in done.stderr
    assert not bench.ran()


def test_from_a_task_runs_it_and_all_after_it(bench):
    assert bench.run().returncode == 0
    assert bench.run("--from", "second").returncode == 0
    assert bench.ran() == sorted([*ALL, "second", "third"])
    wrong = bench.run("--from", "secnd")
    assert wrong.returncode == 1 and "did you mean second" in wrong.stderr


def test_a_changed_byte_is_noticed_and_the_cache_has_its_own_copy(bench):
    assert bench.run().returncode == 0
    good = bench.text("first")
    changed = bench.out / "first/out/text.txt"
    changed.write_text("abX")
    done = bench.run()
    assert done.returncode == 0 and f"{changed.parent}: its contents have changed" in done.stderr
    assert bench.ran() == sorted(ALL)
    assert bench.text("first") == good


def test_without_a_copy_a_changed_output_is_computed_again(bench):
    assert bench.run("--no-cache").returncode == 0
    good = bench.text("first")
    (bench.out / "first/out/text.txt").write_text("abX")
    assert bench.run("--no-cache").returncode == 0
    assert bench.ran() == sorted([*ALL, "first"])
    assert bench.text("first") == good


def test_independent_tasks_run_side_by_side(tmp_path):
    @dsl.pipeline(name="pair")
    def pair(history: str):
        graphs.add("left", history, meet="right")  # each ends only once the other has started
        graphs.add("right", history, meet="left")

    bench = graph_bench(tmp_path, pair)
    assert bench.run("--jobs", 2).returncode == 0


@pytest.mark.parametrize("options, gpu", [(("--jobs", 1), False), (("--jobs", 3), True)])
def test_no_more_at_once_than_asked_for_and_one_task_on_a_device(tmp_path, options, gpu):
    @dsl.pipeline(name="three")
    def three(history: str):
        for name in ("a", "b", "c"):
            graphs.add(name, history, gpu=gpu)

    bench = graph_bench(tmp_path, three)
    os.environ["CYTOLOOM_DEVICE"] = "cpu"
    try:
        assert bench.run(*options).returncode == 0
    finally:
        del os.environ["CYTOLOOM_DEVICE"]
    spans = sorted(
        (start["time"], end["time"])
        for start in bench.events("start")
        for end in bench.events("end")
        if start["task"] == end["task"]
    )
    assert len(spans) == 3
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))


def test_a_failure_says_the_tasks_own_message_first_and_ends_the_run(bench):
    (bench.history / "second.fail").touch()
    done = bench.run()
    assert done.returncode == 1
    failure = done.stderr[done.stderr.index("error: ") :].splitlines()
    assert failure[0] == "error: the worker was told to fail"
    assert failure[1] == "second ended with exit code 1"
    assert failure[2] == f"its log: {bench.out / 'second/log.txt'}"
    assert failure[3] == "not started: third"
    assert "something before the message" in (bench.out / "second/log.txt").read_text()
    made = bench.record()
    assert (made.state, made.tasks["second"].state, made.tasks["third"].state) == ("failed", "failed", "waiting")
    (bench.history / "second.fail").unlink()
    assert bench.run().returncode == 0
    assert bench.ran() == sorted([*ALL, "second"]), "what was finished is not run again"


def test_a_failure_ends_other_running_tasks(bench):
    (bench.history / "beside.hold").touch()  # would run for ever
    (bench.history / "second.fail").touch()
    assert bench.run("--jobs", 2).returncode == 1
    assert bench.record().tasks["beside"].state == "stopped"
    (pid,) = (event["pid"] for event in bench.events() if event["task"] == "beside")
    assert not Path(f"/proc/{pid}").exists()


def test_a_killed_task_is_tried_again_as_often_as_the_graph_says(tmp_path):
    @dsl.pipeline(name="flaky")
    def flaky(history: str, failures: int):
        graphs.add("worker", history, retries=2, failures=failures)

    bench = graph_bench(tmp_path, flaky)
    assert bench.run("--param", "failures=2").returncode == 0
    assert bench.record().tasks["worker"].attempts == 3
    for attempt in bench.history.glob("*.attempt-*"):
        attempt.unlink()
    done = bench.run("--param", "failures=3")
    assert done.returncode == 1 and "signal SIGKILL" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_tasks_and_the_same_command_goes_on(bench, number):
    """SIGINT is Ctrl-C, SIGHUP a terminal that is closed."""
    (bench.history / "second.hold").touch()
    process = bench.start("--jobs", 1)
    until(lambda: "second" in bench.ran())
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "repeat the command to continue" in errors and "Traceback" not in errors
    assert bench.record().state == "interrupted"
    (pid,) = (event["pid"] for event in bench.events() if event["task"] == "second")
    assert not Path(f"/proc/{pid}").exists()
    (bench.history / "second.hold").unlink()
    assert bench.run().returncode == 0
    assert bench.ran().count("first") == 1 and bench.ran().count("second") == 2


def test_kill_9_leaves_no_orphan_and_the_same_command_goes_on(bench):
    (bench.history / "second.hold").touch()
    process = bench.start("--jobs", 1)
    until(lambda: "second" in bench.ran())
    process.kill()
    process.wait()
    (pid,) = (event["pid"] for event in bench.events() if event["task"] == "second")
    until(lambda: not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")
    (bench.history / "second.hold").unlink()
    assert bench.run().returncode == 0
    assert bench.ran().count("first") == 1
    assert bench.text("third") == "-abcabc"


def test_two_executors_do_not_share_a_run_folder(bench):
    (bench.history / "first.hold").touch()
    process = bench.start()
    until(lambda: "first" in bench.ran())
    try:
        second = bench.run()
        assert second.returncode == 1 and f"in use by process {process.pid}" in second.stderr
    finally:
        (bench.history / "first.hold").unlink()
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_folder_that_is_no_run_is_refused_and_left_alone(bench):
    bench.out.mkdir()
    (bench.out / "thesis.txt").write_text("mine")
    done = bench.run()
    assert done.returncode == 1 and "thesis.txt" in done.stderr
    assert [path.name for path in bench.out.iterdir()] == ["thesis.txt"]


def test_a_task_that_writes_no_output_fails(tmp_path):
    def declare(*_):
        return dsl.ContainerSpec(image="x", command=["true"])

    declare.__signature__ = graphs.signature(out=dsl.Output[dsl.Dataset])
    silent = dsl.container_component(declare)

    @dsl.pipeline(name="silent")
    def pipeline(history: str):
        silent()

    bench = graph_bench(tmp_path, pipeline)
    done = bench.run()
    assert done.returncode == 1 and f"{bench.out / 'declare/out'}: missing" in done.stderr


def test_conditions_decide_at_run_time(tmp_path):
    @dsl.pipeline(name="branch")
    def branch(history: str, text: str):
        first = graphs.add("first", history, text=text)
        with dsl.If(first.outputs["length"] == 3):
            graphs.add("three", history)
        with dsl.If(first.outputs["length"] != 3):
            graphs.add("other", history)

    bench = graph_bench(tmp_path, branch)
    assert bench.run("--param", "text=abc").returncode == 0
    assert bench.ran() == ["first", "three"]
    states = {name.rpartition("/")[2]: task.state for name, task in bench.record().tasks.items()}
    assert states == {"first": "done", "three": "done", "other": "omitted"}


def test_an_importer_brings_a_folder(tmp_path):
    @dsl.pipeline(name="imports")
    def imports(history: str, place: str):
        data = dsl.importer(artifact_uri=place, artifact_class=dsl.Dataset)
        graphs.add("reader", history, artifacts={"a": data.output}, text="got ")

    bench = graph_bench(tmp_path, imports)
    (tmp_path / "given").mkdir()
    (tmp_path / "given/text.txt").write_text("this")
    assert bench.run("--param", f"place={tmp_path / 'given'}").returncode == 0
    assert bench.text("reader") == "got this"
    (tmp_path / "given/text.txt").write_text("that")
    assert bench.run("--param", f"place={tmp_path / 'given'}").returncode == 0
    assert bench.text("reader") == "got that", "the contents count, not the name"
