"""`cytoloom`: a wrong command ends before anything runs, with one line and exit code 1."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def cytoloom(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipelines", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("graph") / "label_free.yaml"
    done = cytoloom("compile", "label_free", "-o", target, "--set", "rounds=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(target)
    return target


@pytest.fixture
def source(tmp_path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


def test_list_names_the_graphs():
    done = cytoloom("list")
    assert done.returncode == 0 and "label_free " in done.stdout


def test_listing_graphs_and_running_a_compiled_one_load_no_kfp():
    code = "import sys, pipelines.run_command, pipelines.graphs; print({'kfp', 'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "words, says",
    [
        (["--source", "/no/such/folder"], "--source: /no/such/folder"),
        ([], "--source DIR: required, but not given"),
        (
            ["--source", "SOURCE", "--param", "sed=3"],
            "--param sed: label-free has no such parameter; did you mean seed?",
        ),
        (["--source", "SOURCE", "--param", "seed"], "--param seed: no value; write NAME=VALUE"),
        (["--source", "SOURCE", "--param", "seed=x"], "--param seed: 'x' is not of the type number integer"),
        (["--source", "SOURCE", "--param", "seed=-1"], "pretrain.seed: Input should be greater than or equal to 0"),
        (
            ["--source", "SOURCE", "--param", "k=1000"],
            "em-0/cluster.k: Input should be a whole number >= 1, <= 250",
        ),
        (
            ["--source", "SOURCE", "--from", "em-0/clustr"],
            "--from em-0/clustr: no such task; did you mean em-0/cluster?",
        ),
        (["--source", "SOURCE", "--jobs", "0"], "--jobs 0: too few"),
        (["--source", "SOURCE", "--store", "/tmp/x"], "--store /tmp/x: not an S3 URI; write s3://bucket/prefix"),
        (
            ["--source", "SOURCE", "--store", "s3://bucket"],
            "--store s3://bucket: a whole bucket; give the run a",
        ),
        (
            ["--source", "SOURCE", "--store", "s3://bucket/"],
            "--store s3://bucket/: a whole bucket; give the run a",
        ),
        (["--source", "SOURCE", "--overwrite"], "--overwrite: applies to --store only"),
        (["--source", "SOURCE", "--image", "x"], "--image: needs containers; add --backend docker"),
        (["--source", "SOURCE", "--set", "rounds=2"], "--set: acts when a graph is compiled"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_is_written(graph, source, tmp_path, words, says):
    out = tmp_path / "run"
    done = cytoloom("run", graph, "--out", out, *(str(source) if word == "SOURCE" else word for word in words))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {says}") and "Traceback" not in done.stderr
    assert not out.exists()


def test_an_unknown_pipeline_is_named_with_the_closest(source):
    done = cytoloom("run", "label_fre", "--source", source)
    assert done.returncode == 1 and "did you mean label_free" in done.stderr


@pytest.mark.parametrize("text, says", [("a: 1", "not a compiled pipeline"), ("{", "not YAML")])
def test_a_file_that_is_no_graph_is_refused(tmp_path, text, says):
    (tmp_path / "x.yaml").write_text(text)
    done = cytoloom("run", tmp_path / "x.yaml")
    assert done.returncode == 2 and says in done.stderr


def test_a_stage_that_fails_says_its_own_message_first(graph, source, tmp_path):
    done = cytoloom("run", graph, "--source", source, "--out", tmp_path / "run", "--no-cache")
    assert done.returncode == 1
    failure = done.stderr[done.stderr.index("error: ") :].splitlines()
    assert str(source) in failure[0] and "exit code" not in failure[0], "ingest's own words about an empty folder"
    assert failure[1] == "ingest ended with exit code 1"
    assert "started, attempt 2" not in done.stderr, "it would say the same again"
    assert failure[3].startswith("not started: pretrain, ")
    assert (tmp_path / "run/report.html").is_file()


def test_a_run_within_its_own_source_is_refused_and_so_is_the_reverse(graph, source, tmp_path):
    """A second run would learn from the masks of the first."""
    (tmp_path / "link").symlink_to(source)
    for given, out, says in (
        (source, source / "results", "within --source"),
        (source, source, "within --source"),
        (tmp_path / "link", source / "results", "within --source"),
        (source, tmp_path, "within the run folder"),
    ):
        done = cytoloom("run", graph, "--source", given, "--out", out)
        assert done.returncode == 1 and says in done.stderr and not list(source.iterdir())
