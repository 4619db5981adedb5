"""Connections that are closed where a request or its answer makes too little progress."""

from functools import partial
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from shared.store.failures import StalledError
from shared.store.http import limits
from shared.store.http.metered_response import MeteredResponse


class _MeteredConnection(HTTPConnection):
    """Sends in pieces, each within a time limit, and reads by `MeteredResponse`."""

    def request(self, method: str, url: str, *args: Any, preload_content: bool = True, **options: Any) -> None:
        """Send a request; contents are left in their encoding, so that they have the length that was announced."""
        patience_s = limits.COMPLETION_S if method == "POST" else limits.STALL_S
        self.response_class = partial(MeteredResponse, patience_s=patience_s, streamed=not preload_content)  # type: ignore[assignment]
        options["decode_content"] = False
        super().request(method, url, *args, preload_content=preload_content, **options)

    def send(self, data: Any) -> None:
        """Send bytes. Raises StalledError where the server does not take them."""
        view = memoryview(data)
        for begin in range(0, len(view), limits.MIN_PROGRESS_BYTES):
            if self.sock is not None:  # else it connects first, which has a limit of its own
                self.sock.settimeout(limits.STALL_S)
            try:
                super().send(view[begin : begin + limits.MIN_PROGRESS_BYTES])
            except TimeoutError as error:
                raise StalledError from error


class _MeteredTlsConnection(_MeteredConnection, HTTPSConnection):
    """The same over TLS."""


class MeteredPool(HTTPConnectionPool):
    """Connections to one host."""

    ConnectionCls = _MeteredConnection


class MeteredTlsPool(HTTPSConnectionPool):
    """Connections to one host over TLS."""

    ConnectionCls = _MeteredTlsConnection
