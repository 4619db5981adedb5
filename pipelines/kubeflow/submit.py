"""`cytoloom submit`: hands a pipeline to Kubeflow Pipelines on a cluster, and follows the run where asked to.

Where the API is: --host, KFP_HOST, or from within the cluster its own address. Who one is: KFP_TOKEN, else the service
account token that the cluster mounts (KF_PIPELINES_SA_TOKEN_PATH, or where Kubeflow puts it), else nobody.
"""

import argparse
import contextlib
import hashlib
import io
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines import config
from pipelines.executor import ir
from pipelines.executor.run_command import parameters
from pipelines.executor.task_graph import Graph
from pipelines.kubeflow import resources
from pipelines.kubeflow.lint import lint
from shared.system.errors import UserError

IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
TOKEN_FILE = "/var/run/secrets/kubeflow/pipelines/token"
POLL = 5.0
"""s between two looks at a run."""
PATIENCE = 60
"""Looks in a row that may fail before a run is given up on; the run itself goes on."""
ENDED = {"SUCCEEDED": 0, "SKIPPED": 0, "FAILED": 1, "CANCELED": 1}
"""Final state of a run -> exit code. Skipped: everything was there already."""


def submit(args: argparse.Namespace) -> int:
    """Compile where needed, check what can be known, upload, create the run, print its link. Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="cytoloom-") as folder:
        compiled = _compiled(args, Path(folder))
        graph = ir.read(compiled)
        if "://" not in (args.source or "://"):
            raise UserError(
                f"--source {args.source}: the cluster does not see this machine's files; upload the images to a "
                "bucket and give s3://bucket/prefix"
            )
        values = parameters(graph, args.parameters, args.source)
        host = args.host or os.environ.get("KFP_HOST") or (IN_CLUSTER if Path(TOKEN_FILE).is_file() else "")
        if not host:
            raise UserError("--host: where is Kubeflow Pipelines? Give its URL, or set KFP_HOST")
        if not host.startswith(("http://", "https://")):
            raise UserError(f"--host {host}: a URL begins with http:// or https://, such as http://localhost:8080")
        with _explained(host):
            client = connect(host, args.namespace)
            run_id = _create(client, graph, compiled, values, args)
        print(f"{host.rstrip('/')}/#/runs/details/{run_id}")
        return follow(client, run_id, host) if args.wait else 0


def _compiled(args: argparse.Namespace, folder: Path) -> Path:
    given = Path(args.pipeline)
    if given.suffix not in (".yaml", ".yml"):
        from pipelines.kubeflow.compile import compile_graph

        profile = resources.load(args.profile, cpu_only=args.cpu, caching=not args.no_cache)
        target = folder / "pipeline.yaml"
        compile_graph(args.pipeline, config.load(args.config, args.settings, profile), target)
        return target
    fixed = {"config": args.config, "set": args.settings, "profile": args.profile, "cpu": args.cpu}
    for flag, value in {**fixed, "no-cache": args.no_cache}.items():
        if value:
            raise UserError(f"--{flag}: acts when a graph is compiled; a compiled file takes --param only")
    if not given.is_file():
        raise UserError(f"{given}: no such file")
    errors = [str(finding) for finding in lint(given)]
    if errors:
        raise UserError("\n".join([f"{given}: not fit for a cluster:", *errors]))
    return given


# --- the API ------------------------------------------------------------------------------------------------------


def connect(host: str, namespace: str = "") -> Any:
    """A client of the API at `host`, after a first answer from it. Raises what `_explained` puts into words."""
    warnings.simplefilter("ignore", FutureWarning)  # kfp's own, at every start
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # of each try; the last one is told here
    import kfp_server_api
    from kfp.client import Client
    from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

    token = os.environ.get("KFP_TOKEN") or None
    path = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH") or TOKEN_FILE
    credentials = ServiceAccountTokenVolumeCredentials(path) if not token and Path(path).is_file() else None
    client = Client(
        host,
        namespace=namespace or "cytoloom",  # given, so that kfp asks the server for no other
        existing_token=token,
        credentials=credentials,
        ssl_ca_cert=os.environ.get("SSL_CERT_FILE") or None,
    )
    client._context_setting["namespace"] = namespace
    health = client._healthz_api.healthz_service_get_healthz(_request_timeout=15)
    if not isinstance(health, kfp_server_api.V2beta1GetHealthzResponse):
        raise UserError(f"{host}: answers, but is no Kubeflow Pipelines")
    if health.multi_user and not namespace:
        raise UserError(f"--namespace: {host} has several users; in whose namespace shall the run be?")
    return client


def _create(client: Any, graph: Graph, compiled: Path, values: dict[str, Any], args: argparse.Namespace) -> str:
    """Upload the graph, unless it is there, and start a run of it; returns the run's id."""
    namespace = args.namespace or None
    version = hashlib.sha256(compiled.read_bytes()).hexdigest()[:16]
    name = args.name or f"{graph.name} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    with contextlib.redirect_stdout(io.StringIO()):  # kfp prints links of its own
        experiment = client.create_experiment(args.experiment, namespace=namespace)
        pipeline_id = _pipeline(client, graph.name, namespace)
        if pipeline_id is None:
            uploaded = client.upload_pipeline(str(compiled), graph.name, namespace=namespace)
            pipeline_id = uploaded.pipeline_id
        run = client.run_pipeline(
            experiment.experiment_id,
            name,
            params=values,
            pipeline_id=pipeline_id,
            version_id=_version(client, pipeline_id, version, compiled),
            pipeline_root=args.pipeline_root or None,
            service_account=args.service_account or None,
        )
    return run.run_id


def _pipeline(client: Any, name: str, namespace: str | None) -> str | None:
    """Id of the pipeline of this name, in this namespace where there are several (kfp's own look-up knows none)."""
    wanted = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
    found = client.list_pipelines(filter=json.dumps(wanted), namespace=namespace).pipelines
    return found[0].pipeline_id if found else None


def _version(client: Any, pipeline_id: str, version: str, compiled: Path) -> str:
    """Id of this very graph as a version of the pipeline; uploaded where it is not there yet."""
    token = ""
    while True:
        page = client.list_pipeline_versions(pipeline_id, page_token=token, page_size=100)
        for item in page.pipeline_versions or []:
            if item.display_name == version:
                return item.pipeline_version_id
        token = page.next_page_token
        if not token:
            break
    return client.upload_pipeline_version(str(compiled), version, pipeline_id=pipeline_id).pipeline_version_id


@contextlib.contextmanager
def _explained(host: str) -> Iterator[None]:
    """Turn the client's errors into ones that say what to do."""
    import kfp_server_api
    import urllib3

    try:
        yield
    except kfp_server_api.ApiException as error:
        raise UserError(_reason(host, int(error.status or 0), str(error.body or error.reason or ""))) from error
    except urllib3.exceptions.HTTPError as error:
        cause = getattr(error, "reason", None) or error
        kind = type(cause).__name__
        raise UserError(
            f"{host}: no usable answer ({kind}); is the address right, and the way to it open? From outside the "
            "cluster: kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80, then --host http://localhost:8080"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{host}: answers, but not as Kubeflow Pipelines does ({error})") from error


def _reason(host: str, status: int, body: str) -> str:
    if status == 401:
        return f"{host}: 401, it does not know who asks; set KFP_TOKEN to a token of yours"
    if status == 403:
        return f"{host}: 403, this account may not do that there; check --namespace and the account's roles"
    if status == 404:
        return f"{host}: 404, no Kubeflow Pipelines API of version 2 at this address"
    return f"{host}: answered {status}: {' '.join(body.split())[:300]}"


# --- following ----------------------------------------------------------------------------------------------------


def follow(client: Any, run_id: str, host: str) -> int:
    """Print a line for every change of a task until the run ends; 0 where it succeeded."""
    shown: dict[str, str] = {}
    failures = 0
    started = time.monotonic()
    while True:
        try:
            with _explained(host):
                run = client.get_run(run_id)
            failures = 0
        except UserError as error:
            failures += 1
            if failures == PATIENCE:
                raise
            if failures == 1:
                _line(f"{error}; trying again, the run goes on meanwhile")
            time.sleep(POLL)
            continue
        for name, state, why in _changes(run, shown):
            _line(f"{name}  {state.lower()}{why}")
        if run.state in ENDED:
            seconds = time.monotonic() - started
            _line(f"{run.state.lower()} after {seconds / 60:.0f} min" if seconds > 90 else run.state.lower())
            return ENDED[run.state]
        time.sleep(POLL)


def _changes(run: Any, shown: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """(task, state, reason) of what is not as it was; `shown` is brought up to date. Rounds are before their tasks."""
    details = getattr(run.run_details, "task_details", None) or []
    names = {task.task_id: task.display_name for task in details}
    parents = {task.task_id: task.parent_task_id for task in details}
    for task in sorted(details, key=lambda task: str(task.start_time or task.create_time or "")):
        if not task.state or task.state == shown.get(task.task_id) or not parents.get(task.task_id):
            continue  # the whole run is a task as well, the one without a parent
        shown[task.task_id] = task.state
        parent = parents[task.task_id]
        prefix = f"{names[parent]}/" if parents.get(parent) else ""
        message = getattr(task.error, "message", "") or ""
        yield prefix + task.display_name, task.state, f": {message}" if message else ""


def _line(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
