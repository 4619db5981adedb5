"""A real browser that shows a page as Kubeflow's UI does: in an iframe with `srcdoc` and `sandbox="allow-scripts"`.

Chromium is spoken to by its DevTools protocol through a pipe, which needs no driver of its own.
"""

import html
import json
import os
import select
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPORT = """<script>
const width = element => element.getBoundingClientRect().width;
const tell = tries => {
  const images = [...document.images].map(image => [image.naturalWidth, width(image)]);
  const plots = [...document.querySelectorAll("svg")].map(svg => [svg.querySelectorAll("*").length, width(svg)]);
  if (tries && [...images, ...plots].some(pair => !pair[1])) setTimeout(() => tell(tries - 1), 50);
  else console.log("DRAWN " + JSON.stringify({images, plots, origin: self.origin}));
};
addEventListener("load", () => Promise.all([...document.images].map(image => image.decode())).then(
  () => tell(100), error => console.log("NOT DRAWN: " + error)));
</script>"""
"""Says on the console what was drawn, once every image is decoded; added to the page for the test."""
PATIENCE = 60
"""s until a page must be drawn."""


@dataclass
class Shown:
    """What the browser made of a page."""

    images: list[tuple[float, float]]
    """Width in px of every image's data, and on the page."""
    plots: list[tuple[float, float]]
    """How many shapes a plot has, and its width in px on the page."""
    console: list[str]
    """What the page put on the console, errors among it."""
    requests: list[str]
    """What was asked of any server, but for the page itself."""


def shown(page: str) -> Shown:
    """Show a page (HTML). Every host name leads to a server of ours, so that no request gets away unseen."""
    assert "</body>" in page
    inner = html.escape(page.replace("</body>", REPORT + "</body>"))
    frame = f'<iframe style="width:1200px;height:900px" sandbox="allow-scripts" srcdoc="{inner}"></iframe>'
    with served(f"<!doctype html><body>{frame}</body>") as (port, requests), Browser(port) as browser:
        browser.open(f"http://127.0.0.1:{port}/page")
        drawn = browser.wait_for("DRAWN ")
        time.sleep(0.3)  # for what a page asks for late
        browser.listen(0.2)
    facts = json.loads(drawn)
    assert facts["origin"] == "null"  # the sandbox: no storage, no cookies, nothing of the UI's own
    others = [line for line in browser.console if not line.startswith("DRAWN ")]
    return Shown(facts["images"], facts["plots"], others, requests)


@contextmanager
def served(page: str) -> Iterator[tuple[int, list[str]]]:
    """A server on this machine that has one page, `/page`; its port, and what else it was asked for."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.encode() if self.path == "/page" else b""
            icon = self.path == "/favicon.ico"  # of the outer page, which every browser asks for
            if not body and not icon:
                requests.append(f"{self.headers.get('Host')}{self.path}")
            self.send_response(200 if body else 204 if icon else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server.server_address[1], requests
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Browser:
    """A headless Chromium with a profile of its own, in which every host name leads to a port of this machine."""

    port: int
    console: list[str] = field(default_factory=list)

    def __enter__(self) -> "Browser":
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        assert found, "no Chromium; on Debian: apt-get install chromium"
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        command = [found, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
        command += ["--disable-sync", "--disable-features=NetworkTimeServiceQuerying,OptimizationHints"]
        command += [f"--user-data-dir={self._folder.name}", "--remote-debugging-pipe"]
        command += [f"--host-resolver-rules=MAP * 127.0.0.1:{self.port}, EXCLUDE 127.0.0.1", "about:blank"]
        pipes = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'  # the two that Chromium looks for
        self._process = subprocess.Popen(
            ["bash", "-c", pipes, *command],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._number, self._buffer = 0, b""
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._folder.cleanup()

    def open(self, url: str) -> None:
        """Open a page; frames in processes of their own are listened to as well."""
        self._send("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)
        self._send("Target.createTarget", url=url)

    def wait_for(self, start: str) -> str:
        """The rest of the first line on the console that starts so. Fails after `PATIENCE`."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            self.listen(0.5)
            for line in self.console:
                if line.startswith(start):
                    return line.removeprefix(start)
                assert not line.startswith("NOT DRAWN"), line
        raise AssertionError(f"the page was not drawn within {PATIENCE} s: {self.console}")

    def listen(self, seconds: float) -> None:
        """Take in what the browser says, until it has been quiet for so long."""
        while select.select([self._in], [], [], seconds)[0]:
            data = os.read(self._in, 2**16)
            assert data, "the browser has ended"
            *messages, self._buffer = (self._buffer + data).split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _send(self, method: str, session: str = "", **parameters: Any) -> None:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._out, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")

    def _take(self, message: dict[str, Any]) -> None:
        given = message.get("params", {})
        if message.get("method") == "Target.attachedToTarget":
            session = given["sessionId"]
            self._send("Runtime.enable", session)
            self._send("Log.enable", session)
            self._send("Target.setAutoAttach", session, autoAttach=True, waitForDebuggerOnStart=False, flatten=True)
        elif message.get("method") == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(value.get("value", "")) for value in given["args"]))
        elif message.get("method") == "Runtime.exceptionThrown":
            details = given["exceptionDetails"]
            self.console.append(str(details.get("exception", {}).get("description") or details["text"]))
        elif message.get("method") == "Log.entryAdded":
            self.console.append(f"{given['entry']['level']}: {given['entry']['text']}")
