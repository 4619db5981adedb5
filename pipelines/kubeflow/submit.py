"""`cytoloom submit`: upload a compiled graph to Kubeflow Pipelines, start a run, and follow it if asked to."""

import argparse
import contextlib
import hashlib
import io
import json
import time
from pathlib import Path
from typing import Any

from pipelines.ir import reader
from pipelines.ir.task_graph import Graph
from pipelines.kubeflow.client import api_host, connect, explained
from pipelines.kubeflow.compile import refuse_findings
from pipelines.kubeflow.follow import follow
from pipelines.kubeflow.server_version import refuse_old_server
from pipelines.kubeflow.task_paths import task_paths
from pipelines.parameters import run_time_parameters
from shared.system.errors import UserError


def submit(compiled: Path, args: argparse.Namespace) -> int:
    """Check whatever is known beforehand, start the run, print its link. Returns the exit code."""
    refuse_findings(compiled, args.pipeline)
    graph = reader.read(compiled)
    if "://" not in (args.source or "://"):
        raise UserError(
            f"--source {args.source}: the cluster cannot read files of this machine; upload the images to a bucket and "
            "give s3://bucket/prefix"
        )
    values = run_time_parameters(graph, args.parameters, args.source)
    host = api_host(args.host)
    with explained(host):
        client, version = connect(host, args.namespace)
        refuse_old_server(version, host, compiled)
        run_id = _start_run(client, graph, compiled, values, args)
    print(f"{host.rstrip('/')}/#/runs/details/{run_id}")
    return follow(client, run_id, host, task_paths(compiled)) if args.wait else 0


def _start_run(client: Any, graph: Graph, compiled: Path, values: dict[str, Any], args: argparse.Namespace) -> str:
    """Upload the graph if the server does not have it, and start a run of it. Returns the run's ID."""
    namespace = args.namespace or None
    with contextlib.redirect_stdout(io.StringIO()):  # kfp prints links of its own
        experiment = client.create_experiment(args.experiment, namespace=namespace)
        pipeline_id = _pipeline_id(client, graph.name, namespace)
        if pipeline_id is None:
            pipeline_id = client.upload_pipeline(str(compiled), graph.name, namespace=namespace).pipeline_id
        run = client.run_pipeline(
            experiment.experiment_id,
            args.name or f"{graph.name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
            params=values,
            pipeline_id=pipeline_id,
            version_id=_version_id(client, pipeline_id, compiled),
            pipeline_root=args.pipeline_root or None,
            service_account=args.service_account or None,
        )
    return run.run_id


def _pipeline_id(client: Any, name: str, namespace: str | None) -> str | None:
    """Look up the pipeline of this name in this namespace, which kfp's own look-up ignores; None if there is none."""
    name_filter = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
    found = client.list_pipelines(filter=json.dumps(name_filter), namespace=namespace).pipelines
    return found[0].pipeline_id if found else None


def _version_id(client: Any, pipeline_id: str, compiled: Path) -> str:
    """Look up the version of the pipeline with these contents; upload it if there is none."""
    version = hashlib.sha256(compiled.read_bytes()).hexdigest()[:16]
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
