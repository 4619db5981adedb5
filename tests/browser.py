"""A real browser that shows a page as Kubeflow's UI does: in an iframe with `srcdoc` and `sandbox="allow-scripts"`."""

import html
import json
import re
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REPORT = """<script>
const width = element => element.getBoundingClientRect().width;
const tell = tries => {
  const images = [...document.images].map(image => [image.naturalWidth, width(image)]);
  const plots = [...document.querySelectorAll("svg")].map(svg => [svg.querySelectorAll("*").length, width(svg)]);
  if (tries && [...images, ...plots].some(pair => !pair[1])) setTimeout(() => tell(tries - 1), 50);
  else console.log("DRAWN " + JSON.stringify({images, plots, origin: self.origin}));
};
addEventListener("load", () => Promise.all([...document.images].map(image => image.decode())).then(
  () => tell(40), error => console.error("not drawn: " + error)));
</script>"""
"""Says on the console what was drawn, once every image is decoded; added to the page for the test."""


@dataclass
class Shown:
    """What the browser made of a page."""

    images: list[tuple[float, float]]
    """Width in px of every image's data, and on the page."""
    plots: list[tuple[float, float]]
    """How many shapes a plot has, and its width in px on the page."""
    console: list[str]
    """Lines that the page put on the console, errors among them."""
    requests: list[str]
    """What was asked of any server, but for the page itself."""


def shown(page: str) -> Shown:
    """Show a page (HTML). Every host name leads to a server of ours, so that no request gets away unseen."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert browser, "no Chromium; on Debian: apt-get install chromium"
    assert "</body>" in page
    inner = html.escape(page.replace("</body>", REPORT + "</body>"))
    frame = f'<iframe style="width:1200px;height:900px" sandbox="allow-scripts" srcdoc="{inner}"></iframe>'
    outer = f"<!doctype html><body>{frame}</body>".encode()
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.path == "/page"
            if not wanted:
                requests.append(f"{self.headers.get('Host')}{self.path}")
            self.send_response(200 if wanted else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(outer) if wanted else 0))
            self.end_headers()
            if wanted:
                self.wfile.write(outer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    port = server.server_address[1]
    try:
        with tempfile.TemporaryDirectory() as folder:
            command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
            command += ["--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=10000"]
            command += ["--disable-features=NetworkTimeServiceQuerying,OptimizationHints"]
            command += [f"--user-data-dir={folder}/profile", "--dump-dom"]
            command += [f"--host-resolver-rules=MAP * 127.0.0.1:{port}, EXCLUDE 127.0.0.1"]
            done = subprocess.run(
                [*command, f"http://127.0.0.1:{port}/page"], capture_output=True, text=True, timeout=120
            )
    finally:
        server.shutdown()
        server.server_close()
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    drawn = next((re.search(r'"DRAWN (.*)", source', line) for line in console if "DRAWN" in line), None)
    assert drawn, f"the page was not drawn: {console or done.stderr[-2000:]}"
    facts = json.loads(drawn[1])
    assert facts["origin"] == "null"  # the sandbox: no storage, no cookies, nothing of the UI's own
    others = [line for line in console if "DRAWN" not in line]
    return Shown(facts["images"], facts["plots"], others, [name for name in requests if "favicon" not in name])
