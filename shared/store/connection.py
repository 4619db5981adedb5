"""Connect to the S3 server of the environment. minio, the client, is imported with the first request."""

import os
from functools import cache
from typing import Any

from shared.store.environment import Credentials, addressing_style, credentials, endpoint, region
from shared.store.failures import DENIED_CODES
from shared.store.http import limits
from shared.store.retries import CONNECTION_RETRIES
from shared.store.transfer import PARALLEL_TRANSFERS
from shared.system.errors import UserError


def client() -> Any:
    """Return the `minio.Minio` for the present environment."""
    return _connect(*endpoint(), credentials(), region(), addressing_style())


@cache
def _connect(host: str, tls: bool, user: Credentials, region: str, style: str) -> Any:
    import certifi
    import urllib3
    from minio import Minio

    from shared.store.http.bounded_retry import bounded_retry
    from shared.store.http.pool import StorePool

    http = StorePool(
        timeout=urllib3.Timeout(connect=limits.CONNECT_S, read=limits.ANSWER_S),
        maxsize=2 * PARALLEL_TRANSFERS,
        ca_certs=os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where(),
        retries=bounded_retry(CONNECTION_RETRIES),
    )
    made = Minio(host, user.key, user.secret, user.token, secure=tls, region=region, http_client=http)
    if style == "virtual":
        made.enable_virtual_style_endpoint()
    elif style == "path":  # auto: virtual hosts with Amazon, paths with all others
        made.disable_virtual_style_endpoint()
    return made


def has_bucket(bucket: str) -> bool:
    """Say whether the bucket may exist: yes, or keys that may not ask. Raises UserError where it does not."""
    from minio.error import S3Error

    try:
        if client().bucket_exists(bucket):
            return True
    except S3Error as error:
        return error.code in DENIED_CODES
    raise UserError(f"s3://{bucket}: no such bucket at {endpoint()[0]}; create it, or check the name")
