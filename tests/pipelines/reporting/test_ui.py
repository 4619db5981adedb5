"""`cytoloom ui`: what is served, and what is not."""

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, urljoin

import pytest
from page_dom import Dom
from real_labels import ROOT
from ui_server import ask, serving

from components.evaluate.component import Evaluate
from pipelines.reporting import ui
from pipelines.run_folder import record


@pytest.fixture(scope="module")
def runs(finished, tmp_path_factory) -> Path:
    """Two runs that differ in a parameter and a score, one of them a folder further down; things beside them."""
    folder = tmp_path_factory.mktemp("ui") / "runs"
    shutil.copytree(finished[0], folder / "small <run>")
    shutil.copytree(finished[0], folder / "deep/other")
    made = record.load(folder / "deep/other")
    made.tasks["pretrain"].parameters = {"steps": 7}
    made.tasks["score"] = record.TaskRecord(stage="evaluate", metrics={"dice": 0.5}, remark="Too <high>.")
    made.save(folder / "deep/other")
    (folder / "secret.txt").write_text("not in a run")
    (folder / "small <run>/leak.txt").symlink_to(folder / "secret.txt")
    (folder / "small <run>/.hidden").write_text("hidden")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(runs: Path):
    with serving(runs) as made:
        yield made


RUN = "/runs/" + quote("small <run>")


def test_every_link_of_every_page_leads_somewhere(server):
    seen, waiting = set(), ["/"]
    while waiting:
        page = waiting.pop()
        status, headers, body = ask(server, page)
        assert status == 200, page
        seen.add(page)
        if headers["Content-Type"].startswith("text/html"):
            for link in Dom(body).values("href", "src"):
                target = urljoin(page, link).partition("#")[0]
                if not link.startswith("data:") and target not in seen | set(waiting):
                    assert target.startswith("/"), link
                    waiting.append(target)
    assert len(seen) > 10 and f"{RUN}/ingest/report.html" in seen and "/runs/deep/other/" in seen


def test_the_first_page_lists_runs_with_their_headlines(server):
    body = ask(server, "/")[2].decode()
    dom = Dom(body)
    rows = {row[2]: row[3:] for row in dom.table("A", "B", "run")}
    assert set(rows) == {"small <run>", "deep/other"} and "<run>" not in body
    titles, dice = dom.tables[0][0][7:], Evaluate.headlines["dice"]
    assert set(titles) == {"images", "cells found", dice} and len(titles) == 3
    found = {name: dict(zip(titles, row[-3:], strict=True)) for name, row in rows.items()}
    assert found["small <run>"] == {"images": "2", "cells found": "12", dice: ""}
    assert found["deep/other"] == {"images": "2", "cells found": "12", dice: "0.500 *"}
    assert "deep/other, score: Too <high>." in dom.text
    assert dom.values("action") == ["/compare"] and body.count(" checked") == 2


def test_a_report_is_that_of_the_run_and_nothing_is_written(server, runs):
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    status, headers, body = ask(server, RUN + "/")
    assert status == 200 and Dom(body).table("round")
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
    assert ask(server, RUN + "/files/ingest/images/index.jsonl")[1]["Content-Type"].startswith("text/plain")
    assert ask(server, RUN + "/files/ingest/report.html")[1]["Content-Type"].startswith("text/html")


def test_two_runs_are_compared(server):
    status, _, body = ask(server, f"/compare?a={quote('small <run>')}&b=deep/other")
    assert status == 200 and Dom(body).images() == 4 and b"<script" not in body and b"small <run>" not in body
    assert ask(server, "/compare?a=none&b=deep/other")[0] == 400


def test_a_run_whose_record_is_damaged_is_listed_with_its_reason(runs, tmp_path):
    shutil.copytree(runs / "deep/other", tmp_path / "bad")
    (tmp_path / "bad/run.json").write_text("{")
    shutil.copytree(runs / "deep/other", tmp_path / "binary")
    (tmp_path / "binary/run.json").write_bytes(b"\xff\xfe")
    late = record.load(runs / "deep/other").model_copy(update={"started": 1e300})
    shutil.copytree(runs / "deep/other", tmp_path / "late")
    late.save(tmp_path / "late")
    with serving(tmp_path) as made:
        assert ask(made, "/")[2].decode().count("not a run record") == 2
        assert ask(made, "/runs/bad/")[0] == ask(made, "/runs/binary/")[0] == 500


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
    for options, said in (
        ([str(tmp_path / "none")], "no such folder"),
        ([str(tmp_path), "--port", "99999"], "--port 99999: a port is a number from 0 to 65535"),
        ([str(tmp_path), "--host", "203.0.113.1"], "--host 203.0.113.1"),
    ):
        done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1 and said in done.stderr
        assert "Traceback" not in done.stderr and "bug in the program" not in done.stderr


def test_links_to_what_is_hidden_or_gone_are_no_trouble(runs, tmp_path):
    run = tmp_path / "runs/a"
    shutil.copytree(runs / "deep/other", run)
    (run / ".hidden").write_text("hidden")
    (run / "shown.txt").symlink_to(run / ".hidden")
    (run / "gone.txt").symlink_to(run / "nothing")
    (run / "round.txt").symlink_to(run / "round.txt")
    (run / "inside.txt").symlink_to(run / "ingest/images/rejects.csv")
    (run / os.fsdecode(b"na\xefve.txt")).write_text("not UTF-8")
    with serving(tmp_path / "runs") as made:
        status, _, body = ask(made, "/runs/a/files/")
        assert status == 200 and b"gone.txt" not in body and b"round.txt" not in body
        assert ask(made, "/runs/a/files/inside.txt")[0] == 200
        assert ask(made, "/runs/a/files/na%EFve.txt")[2] == b"not UTF-8" and b"na%EFve.txt" in body
        for name in ("shown.txt", "gone.txt", "round.txt"):
            assert ask(made, f"/runs/a/files/{name}")[0] == 404


def test_odd_requests_get_an_answer(server):
    assert ask(server, "/", Host="[")[0] == 421
    assert ask(server, "//[")[0] == 404
    assert ask(server, "/compare?a=%ff&b=%00")[0] == 400


def test_it_listens_on_the_loopback_of_version_6_as_well(runs):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 in this Python")
    with serving(runs, "::1") as made:
        assert ask(made, "/")[0] == 200
        assert ask(made, "/", Host="rebound.example")[0] == 421


def raw(server, data: bytes) -> bytes:
    """Send bytes, and read until the server closes the connection."""
    with socket.create_connection(server.server_address[:2], timeout=30) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "X" * 100])
def test_nothing_but_get(server, method):
    status, headers, body = ask(server, "/", method)
    assert status == 501 and body.count(b"\n") == 1
    assert (
        headers["Content-Type"].startswith("text/plain") and "default-src 'none'" in headers["Content-Security-Policy"]
    )


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\r\n\r\n", b""),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", b"431"),
    ],
)
def test_broken_requests_get_one_line(server, data, status):
    answer = raw(server, data)
    assert status in answer.split(b"\r\n")[0]
    assert b"<" not in answer.partition(b"\r\n\r\n")[2]
    assert ask(server, "/")[0] == 200


def test_a_request_that_does_not_come_in_time_is_ended(runs, monkeypatch):
    monkeypatch.setattr(ui, "_REQUEST_SECONDS", 0.5)
    with serving(runs) as server, socket.create_connection(server.server_address[:2], timeout=60) as connection:
        connection.settimeout(0.1)
        for _ in range(600):
            try:
                connection.sendall(b"G")
                if connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            raise AssertionError("the connection stays open")


def test_idle_connections_leave_room_for_others(runs, monkeypatch):
    monkeypatch.setattr(ui, "_MAX_CONNECTIONS", 3)
    with serving(runs) as server:
        idle = [socket.create_connection(server.server_address[:2], timeout=30) for _ in range(5)]
        closed = [connection for connection in idle[3:] if connection.recv(1) == b""]
        assert len(closed) == 2, "what is too much is closed at once"
        for connection in idle:
            connection.close()
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                assert ask(server, "/")[0] == 200
                break
            assert time.monotonic() < deadline
