"""Read from the environment which S3 server to use, and split uris.

AWS_ENDPOINT_URL and AWS_REGION name the server, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY the user (also
AWS_SESSION_TOKEN, AWS_CA_BUNDLE, AWS_S3_ADDRESSING_STYLE). None of them is ever an argument, and of all of them only
the endpoint's host is ever part of a message.
"""

import os
from typing import NamedTuple
from urllib.parse import urlsplit

from shared.system.errors import UserError
from shared.system.names import visible

SCHEMES = ("s3", "minio")
"""Schemes of uris. Kubeflow writes `minio://` for the store it comes with."""
MAX_PRESENTED = 300
"""Characters of a server's text that a message repeats."""
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class Credentials(NamedTuple):
    """Who the user is."""

    key: str
    secret: str
    token: str | None
    """Of a session; None for permanent keys."""


def split_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/a/key`, or minio:// -> (bucket, "a/key"). Raises UserError for anything else."""
    scheme, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in SCHEMES or not separator or not bucket:
        raise UserError(f"{uri}: not of the form s3://bucket/name; correct the uri")
    return bucket, key


def endpoint() -> tuple[str, bool]:
    """Return (host:port, whether TLS) of the server; Amazon's own where AWS_ENDPOINT_URL is not set."""
    try:
        url = urlsplit(os.environ.get("AWS_ENDPOINT_URL") or f"https://s3.{region()}.amazonaws.com")
        host, port = url.hostname, url.port
    except ValueError as error:  # such as a port above 65535
        raise UserError(
            f"AWS_ENDPOINT_URL: {str(error)[:1].lower()}{str(error)[1:]}; give http://host:port or https://host"
        ) from error
    if url.scheme not in ("http", "https") or not host:
        raise UserError("AWS_ENDPOINT_URL: not of the form http://host:port or https://host; correct it")
    return f"{host}:{port}" if port else host, url.scheme == "https"


def region() -> str:
    """Return the region that requests are signed for."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def credentials() -> Credentials:
    """Return the user's keys. Raises UserError where they are not set."""
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not key or not secret:
        raise UserError("AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: not in the environment; set them to your S3 keys")
    return Credentials(key, secret, os.environ.get("AWS_SESSION_TOKEN"))


def addressing_style() -> str:
    """Return where the bucket's name goes: `path`, `virtual` (in the host), or `auto`."""
    style = os.environ.get("AWS_S3_ADDRESSING_STYLE", "auto")
    if style not in ("auto", "path", "virtual"):
        raise UserError(f"AWS_S3_ADDRESSING_STYLE: {style!r} is unknown; give path, virtual or auto")
    return style


def presentable(text: str) -> str:
    """Return a server's text for a message: in one line, not too long, and without the user's keys."""
    for secret in filter(None, map(os.environ.get, _SECRETS)):
        text = text.replace(secret, "***")
    return visible(text[:MAX_PRESENTED])
