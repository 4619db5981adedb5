"""`cytoloom ui`: what is served, and what is not."""

import http.client
import shutil
import socket
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urljoin

import cv2
import numpy as np
import pytest
from real_labels import ROOT
from test_run_report import finished  # noqa: F401  (a fixture)

from pipelines import record
from pipelines.ui import Server
from pipelines.ui_compare import compare, differences, results


@pytest.fixture(scope="module")
def runs(finished, tmp_path_factory) -> Path:  # noqa: F811
    """Two runs that differ in a parameter and a score, one of them a folder further down; things beside them."""
    folder = tmp_path_factory.mktemp("ui") / "runs"
    shutil.copytree(finished[0], folder / "small <run>")
    shutil.copytree(finished[0], folder / "deep/other")
    for place in ("small <run>", "deep/other"):
        overlays = folder / place / "infer/predictions/overlays"
        overlays.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(overlays / "a.png"), np.full((40, 60, 3), 128, np.uint8))
    made = record.load(folder / "deep/other")
    made.tasks["pretrain"].parameters = {"steps": 7}
    made.tasks["em-1/evaluate"].metrics["dice"] = 0.5
    made.save(folder / "deep/other")
    (folder / "secret.txt").write_text("not in a run")
    (folder / "small <run>/leak.txt").symlink_to(folder / "secret.txt")
    (folder / "small <run>/.hidden").write_text("hidden")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(runs: Path):
    made = Server(runs, "127.0.0.1", 0)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def ask(server: Server, path: str, method: str = "GET", **headers: str):
    """(status, headers, body) of the raw path: nothing tidies it up."""
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Host": f"127.0.0.1:{port}", **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


RUN = "/runs/" + quote("small <run>")


def links(body: bytes) -> list[str]:
    found: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found.extend(value for name, value in attributes if name in ("href", "src") and value)

    Links().feed(body.decode())
    return found


def test_every_link_of_every_page_leads_somewhere(server):
    seen, waiting = set(), ["/"]
    while waiting:
        page = waiting.pop()
        status, headers, body = ask(server, page)
        assert status == 200, page
        seen.add(page)
        if headers["Content-Type"].startswith("text/html"):
            for link in links(body):
                target = urljoin(page, link).partition("#")[0]
                if not link.startswith("data:") and target not in seen | set(waiting):
                    assert target.startswith("/"), link
                    waiting.append(target)
    assert len(seen) > 10 and f"{RUN}/ingest/report.html" in seen and "/runs/deep/other/" in seen


def test_the_first_page_lists_runs_and_escapes_their_names(server):
    body = ask(server, "/")[2].decode()
    assert "small &lt;run&gt;" in body and "<run>" not in body and "deep/other" in body
    assert "empty" not in body
    form = body[body.index("<form") : body.index("</form>")]
    assert "action='/compare'" in form and form.count("checked") == 2


def test_a_report_is_that_of_the_run_and_nothing_is_written(server, runs):
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    status, headers, body = ask(server, RUN + "/")
    assert status == 200 and b"Scores, round by round" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["X-Content-Type-Options"] == "nosniff"
    assert b"<script" not in body
    assert ask(server, RUN)[0] == 301
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


@pytest.mark.parametrize(
    "path",
    [
        "/runs/../secret.txt",
        RUN + "/../secret.txt",
        RUN + "/files/../../secret.txt",
        RUN + "/files/%2e%2e/secret.txt",
        RUN + "/files/..%2fsecret.txt",
        RUN + "//etc/passwd",
        RUN + "/files//etc/passwd",
        RUN + "/leak.txt",
        RUN + "/files/.hidden",
        RUN + "/files/ingest%00.html",
        "/secret.txt",
        "/runs/empty/",
        "/runs/none/",
        "/../../../../etc/passwd",
        "/runs/" + "a" * 5000,
    ],
)
def test_nothing_outside_a_run_is_served(server, path):
    status, _, body = ask(server, path)
    assert status == 404 and b"root:" not in body and b"not in a run" not in body and b"hidden" not in body


def test_only_looking_is_possible(server):
    for method in ("POST", "PUT", "DELETE"):
        assert ask(server, "/", method)[0] == 501
    status, headers, body = ask(server, "/", "HEAD")
    assert status == 200 and not body and int(headers["Content-Length"]) > 0


def test_a_page_elsewhere_cannot_reach_it_by_another_name(server):
    assert ask(server, "/", Host="rebound.example:8265")[0] == 421
    assert ask(server, "/", Host=f"localhost:{server.server_address[1]}")[0] == 200


def test_files_come_as_what_they_are(server, runs):
    status, headers, body = ask(server, RUN + "/files/ingest/images/rejects.csv")
    assert status == 200 and headers["Content-Type"].startswith("text/plain")
    assert body == (runs / "small <run>/ingest/images/rejects.csv").read_bytes()
    assert ask(server, RUN + "/files/infer/predictions/overlays/a.png")[1]["Content-Type"] == "image/png"


def test_two_runs_side_by_side(server, runs):
    a, b = record.load(runs / "small <run>"), record.load(runs / "deep/other")
    assert differences(a, b) == [["pretrain.steps", "", "7"]]
    rows = {(task, metric): values for task, metric, *values in results(a, b)}
    before = a.tasks["em-1/evaluate"].metrics["dice"]
    assert rows["em-1/evaluate", "dice"] == [before, 0.5, 0.5 - before]
    status, _, body = ask(server, f"/compare?a={quote('small <run>')}&b=deep/other")
    text = body.decode()
    assert status == 200 and "pretrain.steps" in text and "Pixel Dice" in text
    assert "equal" in text and "<script" not in text and "small <run>" not in text
    assert compare("x", runs / "deep/other", "y", runs / "deep/other").html().count("None: the parameters") == 1
    assert ask(server, "/compare?a=none&b=deep/other")[0] == 400


def test_what_was_set_alike_in_all_rounds_is_one_line(runs):
    a, b = (record.load(runs / "deep/other") for _ in range(2))
    a.parameters, b.parameters = {"seed": 1}, {"seed": 2}
    for number in (0, 1):
        for made, k, agreement in ((a, 12, 0.5), (b, 16, 0.6)):
            made.tasks[f"em-{number}/cluster"].parameters = {"k": k, "seed": made.parameters["seed"]}
            made.tasks[f"em-{number}/train-segmentor"].parameters = {"agreement": agreement, "steps": k * number}
    assert differences(a, b) == [
        ["seed", "1", "2"], ["em-*/cluster.k", "12", "16"], ["em-1/train-segmentor.steps", "12", "16"]
    ]  # fmt: skip


def test_a_run_whose_record_is_damaged_is_listed_with_its_reason(runs, tmp_path):
    shutil.copytree(runs / "deep/other", tmp_path / "bad")
    (tmp_path / "bad/run.json").write_text("{")
    made = Server(tmp_path, "127.0.0.1", 0)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        assert "not a run record" in ask(made, "/")[2].decode()
        assert ask(made, "/runs/bad/")[0] == 500
    finally:
        made.shutdown()
        made.server_close()


def test_the_command_says_where_it_serves_and_what_is_wrong(runs, tmp_path):
    command = [sys.executable, "-m", "pipelines", "ui"]
    process = subprocess.Popen(
        [*command, str(runs / "deep/other"), "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        address = process.stdout.readline().split()[0]
        port = int(address.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass
        assert address == f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait()
    done = subprocess.run([*command, str(tmp_path / "none")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "no such folder" in done.stderr and "Traceback" not in done.stderr
