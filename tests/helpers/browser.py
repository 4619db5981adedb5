"""Render a page in Chromium as Kubeflow's UI does: in an iframe with `srcdoc` and `sandbox="allow-scripts"`.

The test controls Chromium by its DevTools protocol through a pipe, so it needs no driver.
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

PROBE = """<script nonce="probe">
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
"""Script added to the page: reports on the console what was drawn, once every image is decoded."""
ALLOWED = "default-src 'none'"
"""Beginning of a page's policy, which forbids scripts."""
TIMEOUT_S = 60
"""Time within which a page must be drawn."""


@dataclass
class Rendering:
    """What the browser made of a page."""

    images: list[tuple[float, float]]
    """Width of every image, px: of its data, and on the page."""
    plots: list[tuple[float, float]]
    """Number of shapes of every plot, and its width on the page, px."""
    console: list[str]
    """Lines that the page wrote to the console, errors included."""
    requests: list[str]
    """Requests to any server, except for the page itself."""


def render(page: str) -> Rendering:
    """Render a page (HTML). Every host name leads to the test's own server, which records all requests."""
    assert "</body>" in page
    page = page.replace(ALLOWED, f"{ALLOWED}; script-src 'nonce-probe'")  # the page's own policy, and the probe
    inner = html.escape(page.replace("</body>", PROBE + "</body>"))
    frame = f'<iframe style="width:1200px;height:900px" sandbox="allow-scripts" srcdoc="{inner}"></iframe>'
    with served(f"<!doctype html><body>{frame}</body>") as (port, requests), Browser(port) as browser:
        browser.open(f"http://127.0.0.1:{port}/page")
        drawn = browser.wait_for("DRAWN ")
        time.sleep(0.3)  # late requests
        browser.listen(0.2)
    facts = json.loads(drawn)
    assert facts["origin"] == "null"  # the sandbox: no storage, no cookies, nothing of the UI's own
    others = [line for line in browser.console if not line.startswith("DRAWN ")]
    return Rendering(facts["images"], facts["plots"], others, requests)


@contextmanager
def served(page: str) -> Iterator[tuple[int, list[str]]]:
    """Serve one page, `/page`; yields the port, and a list of all other requests."""
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
    """Headless Chromium with a new profile, in which every host name leads to one port of this machine."""

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
        pipes = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'  # the descriptors that Chromium uses
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
        """Open a page, and listen to it and to its frames."""
        self._send("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=False, flatten=True)
        self._send("Target.createTarget", url=url)

    def wait_for(self, start: str) -> str:
        """Return the rest of the first console line with this start. Fails after `TIMEOUT_S`."""
        until = time.monotonic() + TIMEOUT_S
        while time.monotonic() < until:
            self.listen(0.5)
            for line in self.console:
                if line.startswith(start):
                    return line.removeprefix(start)
                assert not line.startswith("NOT DRAWN"), line
        raise AssertionError(f"the page was not drawn within {TIMEOUT_S} s: {self.console}")

    def listen(self, seconds: float) -> None:
        """Read messages until the browser was silent for a number of seconds."""
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
