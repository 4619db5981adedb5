"""`cytoloom ui`: what is served, and what is not."""

import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, urljoin

import cv2
import numpy as np
import pytest
import tifffile
from real_labels import ROOT
from test_run_report import finished  # noqa: F401  (a fixture)

from pipelines.reporting.compare import compare, differences, results
from pipelines.reporting.panels import RunFiles
from pipelines.reporting.ui import Server
from pipelines.run_folder import record


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


@contextmanager
def serving(folder: Path, host: str = "127.0.0.1"):
    made = Server(folder, host, 0)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        made.server_close()


@pytest.fixture(scope="module")
def server(runs: Path):
    with serving(runs) as made:
        yield made


def ask(server: Server, path: str, method: str = "GET", **headers: str):
    """(status, headers, body) of the raw path: nothing tidies it up."""
    host, port = server.server_address[:2]
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    shown = f"[{host}]" if ":" in host else host
    for name, value in {"Host": f"{shown}:{port}", **headers}.items():
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
        assert "Traceback" not in done.stderr and "fault of the program" not in done.stderr


# --- runs that come from elsewhere --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outside(finished, tmp_path_factory) -> Path:  # noqa: F811
    """What no page may show: a whole run beside the folder of runs, with a mark in every file."""
    folder = tmp_path_factory.mktemp("hostile") / "outside"
    shutil.copytree(finished[0], folder)
    (folder / "infer/predictions/overlays").mkdir()
    cv2.imwrite(str(folder / "infer/predictions/overlays/a.png"), np.full((40, 60, 3), 128, np.uint8))
    with (folder / "ingest/images/rejects.csv").open("a") as table:
        table.write("TOPSECRET,line\n")
    (folder / "pretrain/report.html").write_text("<p>Layout: TOPSECRET</p><svg class='plot'>TOPSECRET</svg>")
    (folder / "ingest/report.html").write_text("<p>Layout: TOPSECRET</p>")
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
    "linked inside": by_link("infer/predictions/overlays", "infer/predictions/labels"),
    "linked files": by_link(
        *("ingest/images/images-00000.tar", "ingest/images/rejects.csv", "ingest/report.html", "pretrain/report.html"),
        *("ingest/labels/labels-00000.tar", "infer/predictions/overlays/a.png", "infer/predictions/labels/a.tif"),
    ),
}


@pytest.mark.parametrize("way", HOSTILE)
def test_a_run_that_names_what_is_outside_gets_none_of_it_shown(way, finished, outside):  # noqa: F811
    runs = outside.parent / f"runs of {way}"
    run = runs / "bad"
    shutil.copytree(finished[0], run)
    shutil.copytree(outside / "infer/predictions/overlays", run / "infer/predictions/overlays")
    before = _pictures_of(runs)
    assert before["report"] and before["compare"]
    HOSTILE[way](run, outside)
    after = _pictures_of(runs)
    if "name" not in way:  # the artifacts are the run's own then
        assert after["report"] == after["compare"] == 0, "pictures came from the outside"
    with serving(runs) as made:
        for path in ("", "files/", "files/ingest/", "files/infer/predictions/overlays/a.png"):
            assert b"TOPSECRET" not in ask(made, f"/runs/bad/{path}")[2]
        for inner in outside.rglob("*"):
            name = inner.relative_to(outside).as_posix()
            if (run / name).resolve().is_relative_to(outside):
                assert ask(made, f"/runs/bad/files/{quote(name)}")[0] == 404, name
        for path in (outside / "pretrain/report.html", "../../outside/pretrain/report.html"):
            assert ask(made, f"/runs/bad/files/{path}")[0] == 404


def _pictures_of(runs: Path) -> dict[str, int]:
    """Pictures on the page of the run `bad`, and on the one that compares it with itself."""
    with serving(runs) as made:
        report, both = (ask(made, path) for path in ("/runs/bad/", "/compare?a=bad&b=bad"))
    assert report[0] == both[0] == 200 and b"TOPSECRET" not in report[2] + both[2]
    return {"report": report[2].count(b"data:image"), "compare": both[2].count(b"data:image")}


def test_a_picture_that_names_other_files_shows_itself_alone(finished, outside, tmp_path):  # noqa: F811
    """As an OME-TIFF may: a reader that follows it leaves the run."""
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    target = run / "infer/predictions/labels/a.tif"
    size = tifffile.imread(target).shape
    place = outside / "infer/predictions/labels/a.tif"
    planes = "".join(
        f"<TiffData IFD='0' FirstT='{t}' PlaneCount='1'><UUID FileName='{name}'>urn:uuid:{uuid}</UUID></TiffData>"
        for t, (name, uuid) in enumerate([(place, OTHER), (target.name, OWN)])
    )
    xml = (
        f"<?xml version='1.0'?><OME xmlns='http://www.openmicroscopy.org/Schemas/OME/2016-06' UUID='urn:uuid:{OWN}'>"
        f"<Image ID='Image:0'><Pixels ID='Pixels:0' DimensionOrder='XYCZT' Type='uint16' SizeX='{size[1]}' "
        f"SizeY='{size[0]}' SizeC='1' SizeZ='1' SizeT='2'><Channel ID='C:0' SamplesPerPixel='1'/>{planes}</Pixels>"
        "</Image></OME>"
    )
    tifffile.imwrite(target, np.zeros(size, np.uint16), description=xml, metadata=None)
    assert tifffile.imread(target).max() > 0  # the trap works
    found = RunFiles(run, record.load(run)).prediction("a")
    assert found is not None and found.shape == size and not found.any()


OWN, OTHER = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


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
