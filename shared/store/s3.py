"""Talking to an S3 server: where it is, who one is, what is tried again, what an error means. The importer of minio.

Where the server is and the keys come from the environment: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, AWS_CA_BUNDLE, AWS_S3_ADDRESSING_STYLE). None of them is ever an argument
or in a message, but for the endpoint's host.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from shared.system.errors import UserError

T = TypeVar("T")

PARALLEL = 8
"""Transfers at a time."""
PART = 32 * 2**20
"""Bytes of a part, both ways: a large file travels in parts, side by side."""
ATTEMPTS = 4
"""Tries of a request before it fails, beside those of the connection itself."""
PATIENCE = 60.0
"""s that a transfer waits for a server that went away, from the first failure on."""
LONGEST_PAUSE = 5.0
"""s between two tries, at most."""
SCHEMES = ("s3", "minio")
"""Kubeflow writes `minio://` for the store it brings along."""
REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"}
GONE = {"NoSuchKey", "NoSuchBucket", "ResourceNotFound"}
PASSING = {"SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "ServerBusy", "OperationAborted"}


def split(uri: str) -> tuple[str, str]:
    """`s3://bucket/a/key`, or minio:// -> (bucket, "a/key"). Raises UserError for anything else."""
    scheme, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in SCHEMES or not separator or not bucket:
        raise UserError(f"{uri}: not of the form s3://bucket/name")
    return bucket, key


def endpoint() -> tuple[str, bool]:
    """(host:port, whether TLS) of the server; Amazon's own where AWS_ENDPOINT_URL is not set."""
    try:
        url = urlsplit(os.environ.get("AWS_ENDPOINT_URL") or f"https://s3.{_region()}.amazonaws.com")
        host, port = url.hostname, url.port
    except ValueError as error:  # a port that is none, a bracket too many
        raise UserError(f"AWS_ENDPOINT_URL: {str(error)[:1].lower()}{str(error)[1:]}") from error
    if url.scheme not in ("http", "https") or not host:
        raise UserError("AWS_ENDPOINT_URL: not of the form http://host:port or https://host")
    return f"{host}:{port}" if port else host, url.scheme == "https"


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def client() -> Any:
    """The client for the present environment."""
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not key or not secret:
        raise UserError("no S3 keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")
    style = os.environ.get("AWS_S3_ADDRESSING_STYLE", "auto")
    if style not in ("auto", "path", "virtual"):
        raise UserError(f"AWS_S3_ADDRESSING_STYLE: path, virtual or auto is expected (given: {style!r})")
    return _connect(*endpoint(), key, secret, os.environ.get("AWS_SESSION_TOKEN"), _region(), style)


@cache
def _connect(host: str, tls: bool, key: str, secret: str, token: str | None, region: str, style: str) -> Any:
    import certifi
    import urllib3
    from minio import Minio

    authorities = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where()
    http = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=10, read=120),
        maxsize=2 * PARALLEL,
        ca_certs=authorities,
        retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
    )
    made = Minio(host, key, secret, token, secure=tls, region=region, http_client=http)
    if style != "auto":  # auto: virtual hosts with Amazon's, paths with all others
        (made.enable_virtual_style_endpoint if style == "virtual" else made.disable_virtual_style_endpoint)()
    return made


def has_bucket(bucket: str) -> bool:
    """Raises UserError where there is none; keys that may not ask count as yes."""
    from minio.error import S3Error

    try:
        if client().bucket_exists(bucket):
            return True
    except S3Error as error:
        return error.code in REFUSED
    raise UserError(f"s3://{bucket}: no such bucket at {endpoint()[0]}; make it first, or check the name")


def retried(call: Callable[[], T], *, patient: bool = False, progress: Callable[[], int] = lambda: 0) -> T:
    """`call()`, again with growing pauses where the server or the network was at fault.

    patient: also where the server is not there at all, for a minute: a transfer is under way.
    progress: how far `call` has got; patience begins anew where a try got further than those before it.
    """
    import urllib3
    from minio.error import S3Error, ServerError

    since, attempt, reached = 0.0, 0, progress()
    while True:
        try:
            return call()
        except (urllib3.exceptions.HTTPError, ServerError, S3Error) as error:
            if not attempt or progress() > reached:
                since, attempt, reached = time.monotonic(), 0, progress()
            attempt += 1
            away = isinstance(error, urllib3.exceptions.MaxRetryError)  # tried several times already
            passing = not isinstance(error, S3Error) or error.code in PASSING
            tired = attempt >= ATTEMPTS or away
            if patient:
                tired = tired and time.monotonic() - since > PATIENCE
            if tired or not passing or _is_certificate(error):
                raise
            time.sleep(min(LONGEST_PAUSE, 0.25 * 2**attempt))


def _is_certificate(error: BaseException) -> bool:
    """Whether TLS is at fault, so that trying again is no use; a connection that was cut off is no such fault."""
    import ssl

    import urllib3

    seen: Any = error
    found = False
    while isinstance(seen, BaseException):
        if isinstance(seen, ssl.SSLEOFError):
            return False
        found |= isinstance(seen, ssl.SSLError | urllib3.exceptions.SSLError)
        behind = (getattr(seen, "reason", None), seen.__cause__, *seen.args)  # each library has a way of its own
        seen = next((error for error in behind if isinstance(error, BaseException)), None)
    return found


def side_by_side(call: Callable[[Any], None], items: Iterable[Any]) -> None:
    """`call(item)` for all, some at a time; the first error ends it, and what has not begun is not begun."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        futures = [pool.submit(call, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn the client's errors into ones that say what to do."""
    import urllib3
    from minio.error import MinioException, S3Error

    try:
        yield
    except S3Error as error:
        raise UserError(_reason(uri, error.code or "", error.message or "")) from error
    except (urllib3.exceptions.HTTPError, MinioException) as error:
        host = endpoint()[0]
        kind = type(getattr(error, "reason", None) or error).__name__
        remedy = "check AWS_CA_BUNDLE" if _is_certificate(error) else "check AWS_ENDPOINT_URL"
        if "WRONG_VERSION_NUMBER" in str(error):
            remedy = "there is no TLS there: AWS_ENDPOINT_URL should begin with http://"
        raise UserError(f"{uri}: no usable answer from {host} ({kind}); {remedy}") from error
    except ValueError as error:
        raise UserError(f"{uri}: {error}") from error


def _reason(uri: str, code: str, message: str) -> str:
    host = endpoint()[0]
    if code in REFUSED:
        return f"{uri}: {host} refused the keys ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code == "NoSuchBucket":
        return f"{uri}: no such bucket at {host}; make it first, or check the name"
    if code in GONE:
        return f"{uri}: no such object at {host}"
    return f"{uri}: {host} answered {code}: {message}"
