"""Submit with kfp's own client to a substitute API server, with the source on the real S3 server."""

import socket
import uuid

import kfp_server_api
import pytest
import yaml
from kubeflow_server import kubeflow, run_state

from pipelines.cli import main
from pipelines.kubeflow import follow
from shared import store
from shared.readers.fingerprint import fingerprint


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(follow, "POLL", 0.02)
    for name in ("KFP_TOKEN", "KFP_HOST", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def source(s3):
    """Return a source in a bucket; only its listing is read."""
    uri = f"{s3}/submitted-{uuid.uuid4().hex[:8]}"
    store.put(f"{uri}/a.png", b"not read")
    return uri


def submitted(server, *more: str, pipeline: str = "label_free") -> int:
    short = [] if pipeline.endswith(".yaml") else ["--set", "rounds=1"]  # compiles in half the time
    return main(["submit", pipeline, "--host", server.url, *short, *more])


def graph_in(upload: bytes) -> dict:
    """Return the compiled graph in the data of an upload."""
    text = upload.decode()
    return next(yaml.safe_load_all(text[text.index("# PIPELINE") :].split("\r\n--")[0]))


def test_a_run_is_made_of_the_graph_and_its_link_printed(source, capsys):
    with kubeflow() as server:
        assert submitted(server, "--source", source, "--param", "k=7", "--name", "mine") == 0
        assert capsys.readouterr().out == f"{server.url}/#/runs/details/r1\n"
        (run,) = server.runs
        assert run["display_name"] == "mine" and run["experiment_id"] == "e0"
        assert server.experiments[0]["display_name"] == "cytoloom"
        given = run["runtime_config"]["parameters"]
        assert given["source"] == source and given["k"] == "7"
        assert given["fingerprint"] == fingerprint(source) != ""
        assert run["pipeline_version_reference"] == {"pipeline_id": "p0", "pipeline_version_id": "v0"}
        assert graph_in(server.uploads[-1])["pipelineInfo"]["name"] == "label-free"


def test_new_images_under_the_same_name_are_another_fingerprint(source):
    with kubeflow() as server:
        assert submitted(server, "--source", source) == 0
        store.put(f"{source}/b.png", b"one more")
        assert submitted(server, "--source", source) == 0
        first, second = (run["runtime_config"]["parameters"]["fingerprint"] for run in server.runs)
        assert first != second


def test_the_same_graph_is_uploaded_once(source):
    with kubeflow() as server:
        for options in ([], [], ["--set", "rounds=2"]):
            assert submitted(server, "--source", source, *options) == 0
        used = [run["pipeline_version_reference"]["pipeline_version_id"] for run in server.runs]
        assert used == ["v0", "v0", "v1"] and len(server.experiments) == 1


def test_with_several_users_each_namespace_has_its_own(source):
    with kubeflow(multi_user=True) as server:
        for namespace in ("me", "me", "you"):
            assert submitted(server, "--source", source, "--namespace", namespace) == 0
        used = [tuple(run["pipeline_version_reference"].values()) for run in server.runs]
        assert used == [("p0", "v0"), ("p0", "v0"), ("p1", "v1")]
        assert [run["experiment_id"] for run in server.runs] == ["e0", "e0", "e1"]


def test_a_compiled_file_is_submitted_as_it_is(source, tmp_path):
    compiled = tmp_path / "graph.yaml"
    assert main(["compile", "label_free", "-o", str(compiled), "--set", "rounds=1"]) == 0
    with kubeflow() as server:
        assert submitted(server, "--source", source, pipeline=str(compiled)) == 0
        assert compiled.read_bytes() in server.uploads[-1]


def test_options_reach_the_run(source):
    with kubeflow() as server:
        options = [
            "--experiment",
            "screen 3",
            "--pipeline-root",
            "s3://lab/runs",
            "--no-cache",
            "--service-account",
            "lab",
        ]
        assert submitted(server, "--source", source, *options) == 0
        assert server.experiments[0]["display_name"] == "screen 3"
        assert server.runs[0]["runtime_config"]["pipeline_root"] == "s3://lab/runs"
        assert server.runs[0]["service_account"] == "lab"
        assert not graph_in(server.uploads[-1])["root"]["dag"]["tasks"]["pretrain"]["cachingOptions"]
        assert submitted(server, "--source", source) == 0
        assert graph_in(server.uploads[-1])["root"]["dag"]["tasks"]["pretrain"]["cachingOptions"]["enableCache"]


def test_the_service_account_is_the_profiles_unless_another_is_given(source, tmp_path):
    (tmp_path / "lab.yaml").write_text("service_account: lab")
    with kubeflow() as server:
        for options in ([], ["--service-account", "mine"]):
            assert submitted(server, "--source", source, "--profile", str(tmp_path / "lab.yaml"), *options) == 0
        assert [run["service_account"] for run in server.runs] == ["lab", "mine"]


def test_a_server_that_cannot_declare_users_is_refused_with_the_remedy(source, tmp_path, capsys):
    (tmp_path / "new.yaml").write_text("kubeflow: 2.16.0")
    given = ["--source", source, "--profile", str(tmp_path / "new.yaml")]
    with kubeflow(health={"frontendTagName": "2.15.1"}) as server:
        assert submitted(server, *given) == 1 and server.runs == []
    assert "2.15.1 cannot declare the user of a task; compile with `kubeflow: 2.15.1`" in capsys.readouterr().err
    with kubeflow(health={"frontendTagName": "2.16.0"}) as server:
        assert submitted(server, *given) == 0 and len(server.runs) == 1
    with kubeflow(health={}) as server:
        assert submitted(server, *given) == 0
    assert "2.16.0 or newer is needed" in capsys.readouterr().err


def test_the_token_comes_from_the_environment_or_a_file(source, monkeypatch, tmp_path, capsys):
    with kubeflow(token="letmein") as server:
        assert submitted(server, "--source", source) == 1
        assert "401" in capsys.readouterr().err
        monkeypatch.setenv("KFP_TOKEN", "letmein")
        assert submitted(server, "--source", source) == 0
        monkeypatch.delenv("KFP_TOKEN")
        (tmp_path / "token").write_text("letmein")
        monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
        assert submitted(server, "--source", source) == 0
        printed = capsys.readouterr()
        assert "letmein" not in printed.out + printed.err


def test_errors_are_one_line_with_the_flag(source, capsys, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "bad.yaml").write_text("a: 1")
    with kubeflow() as server, kubeflow(multi_user=True) as shared:
        server.forbidden = True
        cases = [
            (["--host", nobody, "--source", source], "no usable answer"),
            (["--host", nobody.removeprefix("http://"), "--source", source], "not a URL; begin with http://"),
            (["--host", "nobody", "--source", source], "not a URL; begin with http://"),
            (["--host", server.url, "--source", source], "403"),
            (["--host", shared.url, "--source", source], "--namespace"),
            (["--host", server.url + "/elsewhere", "--source", source], "404"),
            (["--host", server.url, "--source", str(tmp_path)], "cannot read files of this machine"),
            (["--host", server.url, "--source", "s3://nobody-has-this-bucket/x"], "no such bucket"),
            (["--host", server.url, "--source", source + "-not"], "no object there"),
            (["--host", server.url], "--source DIR: required, but not given"),
            (["--host", server.url, "--source", source, "--param", "kk=3"], "did you mean k"),
            (["--source", source], "--host"),
        ]
        for options, expected in cases:
            assert main(["submit", "label_free", "--set", "rounds=1", *options]) == 1
            error = capsys.readouterr().err
            assert expected in error and error.startswith("error: ") and error.count("\n") == 1
        assert main(["submit", "lable_free", "--host", server.url, "--source", source]) == 1
        assert "did you mean label_free" in capsys.readouterr().err
        assert main(["submit", str(tmp_path / "bad.yaml"), "--host", server.url, "--source", source]) == 2
        assert "not a compiled pipeline" in capsys.readouterr().err
        assert server.runs == shared.runs == []


def test_a_host_that_does_not_answer_is_one_line(source, capsys, caplog):
    with kubeflow() as server:
        https = server.url.replace("http", "https")
        assert main(["submit", "label_free", "--set", "rounds=1", "--host", https, "--source", source]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and not caplog.records


@pytest.mark.parametrize("tag", ["2.14.3", "v2.5.0", "1.8.22", "2.9.10"])
def test_an_old_server_is_refused_with_the_reason(tag, source, capsys):
    with kubeflow(health={"apiServerReady": True, "frontendTagName": tag}) as server:
        assert submitted(server, "--source", source) == 1
        assert server.uploads == server.runs == []
    error = capsys.readouterr().err
    assert f"Kubeflow Pipelines {tag.removeprefix('v')} is too old" in error and "2.15.0 or newer" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("tag", ["2.15.0", "v2.15.0-rc.2", "2.100.0", "3.0.0"])
def test_a_server_that_is_new_enough_gets_the_run_without_a_word(tag, source, capsys):
    with kubeflow(health={"apiServerReady": True, "frontendTagName": tag}) as server:
        assert submitted(server, "--source", source) == 0 and len(server.runs) == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("health", [{}, {"frontendTagName": ""}, {"frontendTagName": "dev_local"}])
def test_a_server_of_unknown_version_gets_the_run_with_a_warning(health, source, capsys):
    with kubeflow(health=health) as server:
        assert submitted(server, "--source", source) == 0 and len(server.runs) == 1
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: --host {server.url}: the version of Kubeflow Pipelines is unknown")
    assert "2.15.0 or newer" in warning and warning.count("\n") == 1


def test_a_ui_without_its_api_server_is_told(source, capsys):
    with kubeflow(health={"apiServerReady": False, "frontendTagName": "2.17.0"}) as server:
        assert submitted(server, "--source", source) == 1
    assert "its API server does not" in capsys.readouterr().err


def test_every_state_of_a_run_is_final_or_goes_on():
    states = set(kfp_server_api.V2beta1RuntimeState.allowable_values)
    assert states - set(follow.EXIT_CODES) == {"RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "CANCELING", "PAUSED"}


@pytest.mark.parametrize(("end", "code"), follow.EXIT_CODES.items())
def test_the_wait_ends_with_every_final_state(end, code, source, capsys):
    with kubeflow(states=[run_state("RUNNING"), run_state(end)]) as server:
        assert submitted(server, "--source", source, "--wait") == code
    assert capsys.readouterr().err.endswith(f" {end.lower()}\n")


def waited(server, source, capsys) -> list[str]:
    """Return what `submit --wait` prints, without the times."""
    submitted(server, "--source", source, "--set", "rounds=2", "--wait")
    return [line[9:] for line in capsys.readouterr().err.splitlines()]


def test_waiting_shows_every_change_of_a_task_and_the_end(source, capsys):
    states = [
        run_state("PENDING"),
        run_state("RUNNING", {"ingest": "RUNNING"}),
        run_state("RUNNING", {"ingest": "SUCCEEDED", "em-0": "RUNNING", "em-0-select-model": "RUNNING"}),
        run_state("RUNNING", {"em-0-select-model": "SUCCEEDED", "em-1": "RUNNING", "em-1-select-model": "RUNNING"}),
        run_state("SUCCEEDED", {"em-1-select-model": "SUCCEEDED", "em-1": "RUNTIME_STATE_UNSPECIFIED"}),
    ]
    with kubeflow(states=states) as server:
        server.failing = 2
        first, *lines = waited(server, source, capsys)
    assert "answered 503" in first
    assert lines == [
        "ingest  running",
        "ingest  succeeded",
        "em-0  running",
        "em-0/select-model  running",
        "em-0/select-model  succeeded",
        "em-1  running",
        "em-1/select-model  running",
        "em-1/select-model  succeeded",
        "succeeded",
    ]


def test_a_run_that_fails_ends_the_wait_with_the_task_that_failed(source, capsys):
    with kubeflow(states=[run_state("FAILED", {"ingest": "SUCCEEDED", "pretrain": "FAILED"})]) as server:
        assert waited(server, source, capsys) == ["ingest  succeeded", "pretrain  failed", "failed"]


def test_a_driver_that_fails_is_told_as_its_task(source, capsys):
    with kubeflow(states=[run_state("FAILED", {"em-0-cluster-driver": "FAILED"})]) as server:
        first, *others = waited(server, source, capsys)
    assert first.startswith("em-0/cluster  failed before its container started") and others == ["failed"]
