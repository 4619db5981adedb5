"""Connect to the API of Kubeflow Pipelines, and explain the errors of its client.

Account: KFP_TOKEN, else the service account token that the cluster mounts (at KF_PIPELINES_SA_TOKEN_PATH, or where
Kubeflow puts it), else none.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.kubeflow.server_version import Version, server_version
from shared.system.errors import UserError

_IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_TOKEN_FILE = "/var/run/secrets/kubeflow/pipelines/token"
_TIMEOUT = 15
"""s to wait for the first answer."""


def api_host(given: str) -> str:
    """Return the URL of the API: given, else KFP_HOST, else the address inside the cluster. Raises UserError."""
    host = given or os.environ.get("KFP_HOST") or (_IN_CLUSTER if Path(_TOKEN_FILE).is_file() else "")
    if not host:
        raise UserError("--host: unknown; give the URL of Kubeflow Pipelines, or set KFP_HOST")
    if not host.startswith(("http://", "https://")):
        raise UserError(f"--host {host}: not a URL; begin with http:// or https://, such as http://localhost:8080")
    return host


def connect(host: str, namespace: str = "") -> tuple[Any, Version | None]:
    """Return a client of the API and the server's version, if it names one.

    Raises UserError, or errors that `explained` translates.
    """
    warnings.simplefilter("ignore", FutureWarning)  # kfp's own, at every start
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # one line per attempt; the error says it once
    from kfp.client import Client
    from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials

    token = os.environ.get("KFP_TOKEN") or None
    path = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH") or _TOKEN_FILE
    credentials = ServiceAccountTokenVolumeCredentials(path) if not token and Path(path).is_file() else None
    client = Client(
        host,
        namespace=namespace or "cytoloom",  # without one, kfp asks the server for a namespace
        existing_token=token,
        credentials=credentials,
        ssl_ca_cert=os.environ.get("SSL_CERT_FILE") or None,
    )
    client._context_setting["namespace"] = namespace
    health = _health(client)
    if not isinstance(health, dict):
        raise UserError(f"--host {host}: not Kubeflow Pipelines; check the address")
    if health.get("apiServerReady") is False:
        raise UserError(f"--host {host}: the UI answers, but its API server does not; check the pod of ml-pipeline")
    if health.get("multi_user") and not namespace:
        raise UserError(f"--namespace: {host} has several users; give the namespace of the run")
    return client, server_version(health)


def _health(client: Any) -> Any:
    """Request the health of the server: as JSON, since kfp's model of the answer leaves out what the UI adds."""
    return client._healthz_api.api_client.call_api(
        "/apis/v2beta1/healthz",
        "GET",
        response_type="object",
        auth_settings=["Bearer"],
        _return_http_data_only=True,
        _request_timeout=_TIMEOUT,
    )


@contextlib.contextmanager
def explained(host: str) -> Iterator[None]:
    """Translate the client's errors into UserErrors with a remedy."""
    import kfp_server_api
    import urllib3

    try:
        yield
    except kfp_server_api.ApiException as error:
        raise UserError(_explanation(host, int(error.status or 0), str(error.body or error.reason or ""))) from error
    except urllib3.exceptions.HTTPError as error:
        cause = type(getattr(error, "reason", None) or error).__name__
        raise UserError(
            f"--host {host}: no usable answer ({cause}); check the address and the network. From outside the cluster: "
            "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80, then --host http://localhost:8080"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"--host {host}: the answer is not one of Kubeflow Pipelines ({error}); check it") from error


def _explanation(host: str, status: int, body: str) -> str:
    if status == 401:
        return f"--host {host}: 401, unknown account; set KFP_TOKEN to a valid token"
    if status == 403:
        return f"--host {host}: 403, the account lacks the right; check --namespace and the account's roles"
    if status == 404:
        return f"--host {host}: 404, no Kubeflow Pipelines API of version 2 here; check the address"
    return f"--host {host}: the server answered {status}: {' '.join(body.split())[:300]}"
