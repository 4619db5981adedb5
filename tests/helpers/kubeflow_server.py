"""A substitute for Kubeflow Pipelines, which needs a cluster: its UI, which passes on the API's v2beta1 paths and JSON.

kfp's own client talks to it. It keeps what it receives in `runs`, `pipelines` and `uploads`.
"""

import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from http_server import serve

PREFIX = "/apis/v2beta1/"


def run_state(state: str, tasks: dict[str, str] | None = None) -> dict[str, Any]:
    """Return a run as the server describes it. tasks: name on the cluster -> state, also of drivers that failed.

    The server lists the nodes of Argo's workflow by their display names: the workflow itself, `root`, a driver before
    each task, and below each container task the node of its retries and a node for each attempt. It gives neither
    parents nor reasons of failures.
    """
    nodes = {"label-free-x7k2p": state, "root-driver": "SUCCEEDED", "root": state}
    details = [_detail(name, value) for name, value in nodes.items()]
    for name, value in (tasks or {}).items():
        details.append(_detail(name, value))
        if name.endswith("-driver"):
            continue
        details.append(_detail(f"{name}-driver", "SUCCEEDED"))
        if not re.fullmatch(r"em-\d+", name):
            details += [_detail("executor", value), _detail("executor(0)", value)]
    for number, detail in enumerate(details):
        detail["task_id"] = f"00000000-0000-0000-0000-{number:012}"
    return {"run_id": "r1", "state": state, "run_details": {"task_details": details}}


def _detail(name: str, state: str) -> dict[str, Any]:
    started = "2026-01-01T00:00:00Z"
    times = {"create_time": started, "start_time": started, "end_time": "1970-01-01T00:00:00Z"}
    child = {"pod_name": f"label-free-x7k2p-{zlib.crc32(name.encode())}"}
    return {"run_id": "r1", "display_name": name, "state": state, **times, "child_tasks": [child]}


class Kubeflow(ThreadingHTTPServer):
    """An API server without any pipeline or run."""

    def __init__(
        self,
        token: str = "",
        multi_user: bool = False,
        states: list[dict[str, Any]] | None = None,
        health: dict[str, Any] | None = None,
    ) -> None:
        """health: what the UI adds to the answer to `healthz`; {} for the API server itself; default: a new release."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.token, self.multi_user = token, multi_user
        self.health = {"apiServerReady": True, "frontendTagName": "2.17.0"} if health is None else health
        self.states = states or []
        """Answers to successive requests for a run; the last one repeats."""
        self.forbidden = False
        self.failing = 0
        """Number of requests for runs still to answer with 503."""
        self.pipelines: dict[tuple[str, str], dict[str, Any]] = {}
        """(namespace, name) -> pipeline. With a single user there is one namespace, whatever the request says."""
        self.versions: list[dict[str, Any]] = []
        self.uploads: list[bytes] = []
        self.experiments: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []

    def namespace(self, asked: dict[str, str]) -> str:
        """Return the namespace of a request; empty with a single user."""
        return asked.get("namespace", "") if self.multi_user else ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def kubeflow(**options: Any) -> Iterator[Kubeflow]:
    """Start a server and stop it afterwards."""
    server = Kubeflow(**options)
    with serve(server):
        yield server


class Handler(BaseHTTPRequestHandler):
    server: Kubeflow

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET", b"")

    def do_POST(self) -> None:
        self._answer("POST", self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, method: str, body: bytes) -> None:
        server, url = self.server, urlsplit(self.path)
        path = url.path.removeprefix(PREFIX)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if not url.path.startswith(PREFIX):
            return self._send(404, {"error": "no such page"})
        if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            return self._send(401, {"error": "unauthenticated"})
        if path == "healthz":
            return self._send(200, {"multi_user": server.multi_user, **server.health})
        if server.forbidden:
            return self._send(403, {"error": "no"})
        if path.startswith("runs/") and server.failing:
            server.failing -= 1
            return self._send(503, {"error": "busy"})
        if method == "POST" and path == "pipelines/upload" and self._pipeline(query["name"], query):
            return self._send(409, {"error": f"Already exist error: Pipeline {query['name']}"})
        found = self._do(method, path, query, body)
        return self._send(404, {"error": f"{method} {path}"}) if found is None else self._send(200, found)

    def _do(self, method: str, path: str, query: dict[str, str], body: bytes) -> dict[str, Any] | None:
        server = self.server
        if path == "experiments" and method == "GET":
            predicate = json.loads(query["filter"])["predicates"][0] if "filter" in query else {}
            name = predicate.get("stringValue") or predicate.get("string_value")
            found = [e for e in server.experiments if e["display_name"] == name]
            return {"experiments": [e for e in found if server.namespace(e) == server.namespace(query)]}
        if path == "experiments":
            given = json.loads(body)
            server.experiments.append({**given, "experiment_id": f"e{len(server.experiments)}"})
            return server.experiments[-1]
        if path == "pipelines" and method == "GET":
            predicates = json.loads(query["filter"])["predicates"]
            name = predicates[0].get("stringValue") or predicates[0].get("string_value")
            return {"pipelines": self._pipeline(name, query)}
        if path == "pipelines/upload":
            made = {"pipeline_id": f"p{len(server.pipelines)}", "display_name": query["name"]}
            server.pipelines[server.namespace(query), query["name"]] = made
            server.uploads.append(body)
            return made
        if path == "pipelines/upload_version":
            number = len(server.versions)
            version = {"pipeline_id": query["pipelineid"], "pipeline_version_id": f"v{number}"}
            server.versions.append({**version, "display_name": query["name"]})
            server.uploads.append(body)
            return server.versions[-1]
        if path.startswith("pipelines/") and path.endswith("/versions"):
            return {"pipeline_versions": [v for v in server.versions if v["pipeline_id"] == path.split("/")[1]]}
        if path == "runs" and method == "POST":
            server.runs.append(json.loads(body))
            return {**server.runs[-1], "run_id": f"r{len(server.runs)}"}
        if path.startswith("runs/") and server.states:
            return server.states.pop(0) if len(server.states) > 1 else server.states[0]
        return None

    def _pipeline(self, name: str, query: dict[str, str]) -> list[dict[str, Any]]:
        found = self.server.pipelines.get((self.server.namespace(query), name))
        return [found] if found else []

    def _send(self, code: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
