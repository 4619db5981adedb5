"""Send requests to the S3 server alone, and refuse answers that are no answers of an S3 server."""

from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3 import BaseHTTPResponse

from shared.store.environment import endpoint, presentable, region
from shared.store.failures import foreign_answer, is_web_page
from shared.store.http.connections import MeteredPool, MeteredTlsPool
from shared.system.errors import UserError

_REDIRECTS = (301, 302, 303, 307, 308)
_REGION_HEADER = "x-amz-bucket-region"
_WEB_PAGES = ("text/html", "application/xhtml+xml")


class StorePool(urllib3.PoolManager):
    """Connections for minio. It follows no redirect: headers with the session's token would go along."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.pool_classes_by_scheme = {"http": MeteredPool, "https": MeteredTlsPool}

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> BaseHTTPResponse:  # type: ignore[override]
        """Send a request. Raises UserError for an answer that only another server can give."""
        response = super().urlopen(method, url, redirect=False, **options)
        try:
            _refuse_redirect(url, response)
            _refuse_gateway_error(method, response)
            _refuse_web_page(response, options.get("preload_content", True))
        except BaseException:
            response.close()
            raise
        return response


def _refuse_redirect(url: str, response: BaseHTTPResponse) -> None:
    if response.status not in _REDIRECTS:
        return
    host, right = endpoint()[0], presentable(response.headers.get(_REGION_HEADER, ""))
    if right and right != region():
        raise UserError(f"AWS_REGION: {host} says that the bucket is in {right}, not in {region()}; set AWS_REGION")
    if location := response.headers.get("Location"):
        raise UserError(
            f"AWS_ENDPOINT_URL: {host} redirects to {_target(url, location)}, and no redirect is followed, because "
            "your keys would go along; set AWS_ENDPOINT_URL to the address of the S3 server itself"
        )


def _target(url: str, location: str) -> str:
    """Return where a redirect leads, without path, query and user."""
    try:
        here, there = urlsplit(url), urlsplit(urljoin(url, location))
        host, port = there.hostname, there.port
    except ValueError:
        return "an address that cannot be read"
    if (there.scheme, there.netloc) == (here.scheme, here.netloc):
        return "another path of its own, as a console does"
    return presentable(f"{there.scheme}://{host}" + (f":{port}" if port else ""))


def _refuse_gateway_error(method: str, response: BaseHTTPResponse) -> None:
    """Raise an error that is tried again where not S3 itself answers that it is out of order."""
    from minio.error import ServerError

    is_xml = "application/xml" in response.headers.get("Content-Type", "").split(";")
    if (response.status >= 500 or response.status == 429) and method != "HEAD" and not is_xml:
        raise ServerError(f"status {response.status}", response.status)


def _refuse_web_page(response: BaseHTTPResponse, is_read: bool) -> None:
    """Raise UserError for HTML; objects that are HTML themselves come with the headers of S3.

    is_read: the answer is no object, and its body is in memory.
    """
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    is_object = response.status in (200, 206) and "ETag" in response.headers
    from_s3 = is_object or any(name.lower().startswith("x-amz-") for name in response.headers)
    if (kind in _WEB_PAGES and not from_s3) or (is_read and is_web_page(response.data or b"")):
        raise foreign_answer(f"a web page (HTML, status {response.status})")
