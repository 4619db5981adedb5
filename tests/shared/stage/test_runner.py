"""The real command line on real folders: results, error messages, and what failures leave behind."""

import contextlib
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import probe
import pytest

from shared.artifacts.kinds import LabelSet
from shared.artifacts.manifest import read_manifest, verify


@pytest.fixture(scope="module")
def tree(make_tree):
    tree = make_tree("probe")
    tree.add_stage("probe", probe.FILES)
    return tree


@pytest.fixture
def given(small_images, tmp_path):
    """Arguments of a run that succeeds."""
    out = tmp_path / "out"
    return ["probe", "--images", small_images, "--first", out / "first", "--second", out / "second"]


def rejected(done: subprocess.CompletedProcess, *words: str, code: int = 1) -> str:
    """Check that the run failed with one clear message and no traceback, and return the message."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("error: ")
    for word in words:
        assert word in message, message
    return message


def remains(folder: Path) -> list[str]:
    """Return everything below `folder`, hidden files included."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) if folder.exists() else []


# --- successful runs ------------------------------------------------------------------------------------------------


def test_a_run_by_hand(tree, given, tmp_path):
    beside = ["--report", tmp_path / "r.html", "--metrics", tmp_path / "m.json", "--curve", tmp_path / "c.json"]
    done = tree.run(*given, "--text", "x", *beside)
    assert done.returncode == 0, done.stderr
    first, second = (verify(tmp_path / "out" / name, LabelSet) for name in ("first", "second"))
    assert first.digest == second.digest and first.stage == "probe" and first.parameters["text"] == "x"
    assert first.inputs == {"images": read_manifest(Path(given[2])).digest}
    assert json.loads((tmp_path / "m.json").read_text()) == {"images": 4, "resumed": 0}
    assert json.loads((tmp_path / "c.json").read_text()) == {
        "labels": ["background", "cell"],
        "confusion": [[90, 5], [2, 30]],
        "roc": [[0, 0, 1], [0.25, 0.875, 0.5], [1, 1, 0]],
    }
    assert "&lt;x&gt;" in (tmp_path / "r.html").read_text()
    assert remains(tmp_path) == sorted(
        ["c.json", "m.json", "r.html", "out"]
        + [f"out/{n}{f}" for n in ("first", "second") for f in ("", "/artifact.json", "/index.jsonl", "/labelset.json")]
    )


def test_the_printed_command_runs_it_again_with_the_same_digest(tree, given, tmp_path):
    done = tree.run(*given, "--text", "two words", "--number", "6", "--flag")
    line = next(line for line in done.stderr.splitlines() if " -m components probe" in line)
    again = subprocess.run(shlex.split(line), cwd=tree.root, env=tree.environment(), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    made = [read_manifest(tmp_path / "out" / name) for name in ("first", "first-again")]
    assert made[0] == made[1]
    assert made[0].parameters == {
        "mode": "fine", "text": "two words", "number": 6, "limit": "auto", "share": 0.5, "flag": True, "parts": [1, 2]
    }  # fmt: skip


def test_lists_come_as_json_or_with_commas(tree, given, tmp_path):
    assert tree.run(*given, "--parts", "4,5").returncode == 0
    assert read_manifest(tmp_path / "out/first").parameters["parts"] == [4, 5]
    assert tree.run(*given, "--parts", "[6]", "--overwrite").returncode == 0
    assert read_manifest(tmp_path / "out/first").parameters["parts"] == [6]


def executor_input(images: Path, root: Path, **values: object) -> dict:
    def artifact(name: str) -> dict:
        return {"artifacts": [{"name": f"{name}-name", "uri": f"{root}/{name}", "type": {}, "metadata": {}}]}

    return {
        "inputs": {
            "artifacts": {"images": {"artifacts": [{"name": "images", "uri": str(images)}]}},
            "parameterValues": values,
        },
        "outputs": {
            "artifacts": {name: artifact(name) for name in ("first", "second", "report", "metrics", "curve")},
            "parameters": {name: {"outputFile": f"{root}/{name}"} for name in ("count", "name")},
            "outputFile": f"{root}/executor_output.json",
        },
    }


def test_kubeflow_reads_the_executor_output(tree, small_images, tmp_path):
    from google.protobuf import json_format
    from kfp import dsl
    from kfp.local import executor_output_utils
    from kfp.pipeline_spec import pipeline_spec_pb2

    (tmp_path / "first").mkdir()  # a launcher may create the folders beforehand
    given = executor_input(small_images, tmp_path, number=6.0, text="17", flag=True)
    done = tree.run("probe", "--executor-input", json.dumps(given))
    assert done.returncode == 0, done.stderr
    output = executor_output_utils.load_executor_output(str(tmp_path / "executor_output.json"))
    read = json_format.MessageToDict(output)
    assert read["parameterValues"] == {"count": 4.0, "name": "17"}
    assert read["artifacts"]["metrics"]["artifacts"][0]["metadata"] == {"images": 4.0, "resumed": 0.0}
    theirs = dsl.ClassificationMetrics()
    theirs.log_confusion_matrix(["background", "cell"], [[90, 5], [2, 30]])
    theirs.log_roc_curve([0, 0.25, 1], [0, 0.875, 1], [1, 0.5, 0])
    assert read["artifacts"]["curve"]["artifacts"][0]["metadata"] == theirs.metadata
    first = read["artifacts"]["first"]["artifacts"][0]
    assert first["name"] == "first-name" and first["uri"] == f"{tmp_path}/first"
    assert first["metadata"]["digest"] == verify(tmp_path / "first", LabelSet).digest
    assert first["metadata"]["images"] == len((tmp_path / "first/index.jsonl").read_text().splitlines())
    assert first["metadata"]["resumed"] == 0.0, "the stage's metrics are in the artifact's metadata"

    # kfp's own reader of the whole task: the text of a string parameter stays text where it looks like a number
    spec = pipeline_spec_pb2.ComponentSpec()
    kinds = pipeline_spec_pb2.ParameterType
    spec.output_definitions.parameters["count"].parameter_type = kinds.NUMBER_INTEGER
    spec.output_definitions.parameters["name"].parameter_type = kinds.STRING
    for name in given["outputs"]["artifacts"]:
        spec.output_definitions.artifacts[name].artifact_type.schema_title = "system.Artifact"
        given["outputs"]["artifacts"][name]["artifacts"][0]["type"] = {"schemaTitle": "system.Artifact"}
    message = json_format.ParseDict(given, pipeline_spec_pb2.ExecutorInput())
    outputs = executor_output_utils.get_outputs_for_task(message, spec)
    assert outputs["count"] == 4 and isinstance(outputs["count"], int) and outputs["name"] == "17"
    assert outputs["metrics"].metadata["images"] == 4 and outputs["curve"].metadata == theirs.metadata


def test_executor_input_replaces_what_an_earlier_try_left(tree, small_images, tmp_path):
    for text in ("a", "b"):
        given = executor_input(small_images, tmp_path, text=text)
        assert tree.run("probe", "--executor-input", json.dumps(given)).returncode == 0
    assert verify(tmp_path / "first").parameters["text"] == "b"


@pytest.mark.parametrize("text", ["{", "[]", '{"outputs": {"artifacts": {"first": {}}}}', "17"])
def test_wrong_executor_input(tree, text):
    rejected(tree.run("probe", "--executor-input", text), "--executor-input", "not what Kubeflow writes", code=2)


def test_a_skipped_stage_flags_its_outputs(tree, given, tmp_path):
    assert tree.run(*given, "--mode", "skip").returncode == 0
    skipped = verify(tmp_path / "out/first")
    assert skipped.skipped == "nothing to do"
    assert tree.run(*given, "--overwrite").returncode == 0
    assert verify(tmp_path / "out/first").digest != skipped.digest


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--number", "12"], ["--number", "less than or equal to 9", "(given: 12)"], 2),
        (["--number", "4"], ["--number", "multiple of 3"], 2),
        (["--number", "three"], ["--number", "integer", "'three'"], 2),
        (["--limit", "1"], ["error: --limit: input should be a whole number >= 2, or 'auto' (given: '1')"], 2),
        (["--share", "1"], ["--share", "less than 1"], 2),
        (["--share", "nan"], ["--share"], 2),
        (["--mode", "fast"], ["--mode", "'fine'", "'fast'"], 2),
        (["--parts", "1,x"], ["--parts.1", "integer"], 2),
        (["--flag", "perhaps"], ["--flag", "boolean"], 2),
        (["--nummber", "3"], ["--nummber", "no such argument", "did you mean number?"], 2),
        (["--numb", "3"], ["--numb", "did you mean number?"], 2),
        (["--image", "x"], ["--image", "did you mean images?"], 2),
        (["--number"], ["--number", "a value is missing"], 2),
        (["stray"], ["stray", "no such argument"], 2),
        (["--images", ""], ["--images", "the path is empty"], 2),
    ],
)
def test_bad_arguments_are_named(tree, given, tmp_path, arguments, words, code):
    rejected(tree.run(*given, *arguments), *words, code=code)
    assert remains(tmp_path) == []


def test_missing_arguments_are_named(tree, given):
    rejected(tree.run("probe"), "--images, --first, --second: required and not given", code=2)
    rejected(tree.run(*given[:-2]), "--second: required", code=2)


def test_an_unknown_stage_suggests_the_nearest(tree):
    rejected(tree.run("prob"), "prob: no such stage; did you mean probe?", code=2)
    assert "probe" in tree.run("--help").stdout


# --- inputs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(small_images, tmp_path):
    shutil.copytree(small_images, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_changed_byte_is_found(tree, given, copy):
    shard = copy / "images-00000.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    given[2] = copy
    rejected(tree.run(*given), "--images", str(shard), "contents differ", "make it again")


def test_an_artifact_of_another_kind(tree, given, tmp_path):
    assert tree.run(*given).returncode == 0
    wrong = ["probe", "--images", tmp_path / "out/first", "--first", tmp_path / "a", "--second", tmp_path / "b"]
    rejected(tree.run(*wrong), "--images", "an ImageSet is needed here, this one's type is LabelSet")
    assert not (tmp_path / "a").exists()


def test_an_artifact_without_its_manifest_or_a_file(tree, given, copy, tmp_path):
    given[2] = copy
    (copy / "index.jsonl").unlink()
    rejected(tree.run(*given), "index.jsonl", "missing")
    (copy / "extra").write_text("x")
    shutil.copy(Path(copy) / "artifact.json", tmp_path / "kept")
    (copy / "artifact.json").write_text("{}")
    rejected(tree.run(*given), "artifact.json", "not a readable manifest")
    rejected(tree.run(*given[:1], "--images", tmp_path / "none", *given[3:]), "--images", "no such folder")
    assert not (tmp_path / "out/first").exists()


# --- outputs --------------------------------------------------------------------------------------------------------


def test_a_finished_output_is_refused_and_kept(tree, given, tmp_path):
    assert tree.run(*given, "--text", "old").returncode == 0
    before = verify(tmp_path / "out/first")
    rejected(tree.run(*given, "--text", "new"), "--first", "finished artifact", "--overwrite")
    assert verify(tmp_path / "out/first") == before


def test_overwrite_keeps_the_old_one_until_the_new_one_stands(tree, given, tmp_path):
    assert tree.run(*given, "--text", "old").returncode == 0
    old, listing = verify(tmp_path / "out/first"), remains(tmp_path / "out")
    rejected(tree.run(*given, "--text", "new", "--mode", "raise", "--overwrite"), "an unforeseen error")
    assert verify(tmp_path / "out/first") == old
    checkpoints = [name for name in remains(tmp_path / "out") if name.startswith(".checkpoints")]
    assert sorted(listing + checkpoints) == remains(tmp_path / "out")
    assert tree.run(*given, "--text", "new", "--overwrite").returncode == 0
    assert verify(tmp_path / "out/first").parameters["text"] == "new"


def test_a_failed_run_leaves_its_checkpoints_and_nothing_else(tree, given, tmp_path):
    rejected(tree.run(*given, "--mode", "raise"), "RuntimeError", "--debug")
    left = remains(tmp_path / "out")
    assert [name for name in left if not name.startswith(".checkpoints")] == []
    assert any(name.endswith("/step") for name in left)
    again = tree.run(*given, "--mode", "raise", "--metrics", tmp_path / "m.json")
    assert again.returncode == 1 and not (tmp_path / "m.json").exists()


def test_all_outputs_or_none(tree, given, tmp_path):
    """The second output cannot be sealed because it holds a link, so the first does not appear either."""
    rejected(tree.run(*given, "--mode", "delete"), "symbolic link")
    assert [name for name in remains(tmp_path / "out") if not name.startswith(".checkpoints")] == []


def test_foreign_folders_and_files_are_left_alone(tree, given, tmp_path):
    (tmp_path / "out/first").mkdir(parents=True)
    (tmp_path / "out/first/thesis.txt").write_text("mine")
    rejected(tree.run(*given, "--overwrite"), "--first", "not empty and no artifact")
    assert (tmp_path / "out/first/thesis.txt").read_text() == "mine"
    (tmp_path / "out/second").write_text("mine")
    rejected(tree.run(*given[:4], tmp_path / "else", *given[5:], "--overwrite"), "--second", "is a file")
    assert (tmp_path / "out/second").read_text() == "mine"


def test_outputs_may_not_overlap_inputs_or_each_other(tree, given, copy, tmp_path):
    rejected(tree.run(*given[:2], copy, "--first", copy, *given[5:], "--overwrite"), "--first", "--images")
    rejected(tree.run(*given[:2], copy, "--first", copy / "sub", *given[5:]), "--first", "lies in --images")
    rejected(tree.run(*given[:2], copy, "--first", tmp_path, *given[5:]), "holds --images")
    rejected(tree.run(*given[:5], "--second", given[4]), "a place of its own")
    verify(copy)


def without_override() -> None:
    """Apply file permissions to root as well, from the next exec on."""
    import ctypes

    if os.geteuid() == 0:
        assert ctypes.CDLL(None).prctl(24, 1, 0, 0, 0) == 0  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def test_a_folder_that_may_not_be_written(tree, given, tmp_path):
    (tmp_path / "out").mkdir(mode=0o555)
    done = tree.run(*given, preexec_fn=without_override)
    rejected(done, str(tmp_path / "out"), "Permission denied", "give it access or another path")
    assert remains(tmp_path / "out") == []


def test_an_output_below_a_file(tree, given, tmp_path):
    (tmp_path / "out").write_text("a file")
    rejected(tree.run(*given), str(tmp_path / "out"))


@pytest.fixture
def small_disk(tmp_path):
    """A mounted disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    if not mounted:
        pytest.skip("needs the right to mount a small tmpfs (root)")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("mode", ["fill", "hide"])
def test_a_disk_that_fills_up(tree, small_images, small_disk, mode):
    given = ["probe", "--images", small_images, "--first", small_disk / "a/first", "--second", small_disk / "a/second"]
    done = tree.run(*given, "--mode", mode)
    rejected(done, "the disk is full", str(small_disk), "free space")
    assert [name for name in remains(small_disk / "a") if not name.startswith(".checkpoints")] == []
    done = tree.run(*given)  # there is space for small files
    assert done.returncode == 0, done.stderr


def test_a_file_size_limit(tree, given, tmp_path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    rejected(tree.run(*given, "--mode", "fill", preexec_fn=limit), "--first", "larger than is allowed")
    assert [name for name in remains(tmp_path / "out") if not name.startswith(".checkpoints")] == []


def test_an_output_that_is_a_mount_point(tree, small_images, small_disk, tmp_path):
    given = ["probe", "--images", small_images, "--first", small_disk, "--second", tmp_path / "second"]
    for text in ("a", "b"):
        done = tree.run(*given, "--overwrite", "--text", text)
        assert done.returncode == 0, done.stderr
        assert verify(small_disk).parameters["text"] == text


# --- processes ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def waiting(tree, given, **env: str):
    """Start the stage in a process, and yield it while it computes."""
    process = subprocess.Popen(
        tree.command(*given, "--mode", "wait"),
        cwd=tree.root,
        env=tree.environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "waiting\n", process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run(tree, given, tmp_path, number, code):
    with waiting(tree, given) as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in err and err.strip().splitlines()[-1].startswith("interrupted: ")
    assert [name for name in remains(tmp_path / "out") if not name.startswith(".checkpoints")] == []


def test_a_killed_run_leaves_no_artifact_and_is_cleared_by_the_next(tree, given, tmp_path):
    with waiting(tree, given) as process:
        process.kill()
        process.wait()
    assert not (tmp_path / "out/first").exists() and (tmp_path / "out/.first.partial/index.jsonl").exists()
    done = tree.run(*given)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name != ".checkpoints") == [
        "first",
        "second",
    ]
    verify(tmp_path / "out/first")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_same_command_goes_on_from_its_checkpoints(tree, given, tmp_path, elsewhere):
    """The same command finds the checkpoints of a killed run, and removes them when it succeeds."""
    env = {"CYTOLOOM_CHECKPOINTS": str(tmp_path / "kept")} if elsewhere else {}
    folder = tmp_path / "kept" if elsewhere else tmp_path / "out/.checkpoints"
    with waiting(tree, given, **env) as process:
        process.kill()
    (kept,) = folder.iterdir()
    assert (kept / "step").is_file()
    done = tree.run(*given, "--mode", "wait", "--metrics", tmp_path / "m.json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "m.json").read_text())["resumed"] == 1
    assert not kept.exists() and folder.exists() == elsewhere


def test_two_processes_and_one_output(tree, given, tmp_path):
    with waiting(tree, given) as process:
        rejected(tree.run(*given), "--first", "another process is writing", str(tmp_path / "out/first"))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert tree.run(*given).returncode == 0


def test_an_interrupted_replacement_is_restored(tree, given, tmp_path):
    assert tree.run(*given, "--text", "old").returncode == 0
    (tmp_path / "out/first").rename(tmp_path / "out/.first.old")  # the state after kill -9 between two renames
    rejected(tree.run(*given, "--text", "new"), "finished artifact")
    assert verify(tmp_path / "out/first").parameters["text"] == "old"


def test_debug_shows_the_traceback(tree, given):
    done = tree.run(*given, "--mode", "raise", "--debug")
    assert done.returncode == 1 and "Traceback" in done.stderr and "in run" in done.stderr


def test_out_of_memory_says_so(tree, given):
    rejected(tree.run(*given, "--mode", "outofmemory"), "out of memory", "smaller batch")


def test_help_into_a_closed_pipe(tree):
    done = subprocess.run(
        ["/bin/sh", "-c", shlex.join(tree.command("probe", "--help")) + " | true"],
        cwd=tree.root,
        env=tree.environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "Traceback" not in done.stderr


def test_a_stale_lock_file_is_no_obstacle(tree, given, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.first.lock").touch()
    started = time.time()
    assert tree.run(*given).returncode == 0
    assert (tmp_path / "out/first/artifact.json").stat().st_mtime >= started - 1
    assert not (tmp_path / "out/.first.lock").exists()


def test_executor_input_that_lacks_a_port(tree, small_images, tmp_path):
    given = executor_input(small_images, tmp_path)
    del given["outputs"]["artifacts"]["second"]
    rejected(tree.run("probe", "--executor-input", json.dumps(given)), "--second", "no path is given")
    assert remains(tmp_path) == []


# --- threads ------------------------------------------------------------------------------------------------------


def test_every_library_computes_with_the_threads_asked_for(tree, given):
    asked = {"CYTOLOOM_THREADS": "1", "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    done = tree.run(*given, "--mode", "load", env=asked)
    assert done.returncode == 0, done.stderr
    assert "[('blas', 1), ('openmp', 1)]" in done.stdout


@pytest.mark.parametrize("threads", ["two", "0", "-1", "1.5"])
def test_a_wrong_number_of_threads(tree, given, threads):
    done = tree.run(*given, env={"CYTOLOOM_THREADS": threads})
    rejected(done, f"CYTOLOOM_THREADS: '{threads}' is not a number of threads; give 1 or more, or unset it")
