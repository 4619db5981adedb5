"""Retry requests to the store: how often, how long, and after which errors."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from shared.store.failures import TRANSIENT_CODES, is_certificate_error

T = TypeVar("T")

MAX_ATTEMPTS = 4
"""Attempts of a request, each with the connection's own retries."""
CONNECTION_RETRIES = 3
"""Retries of a request by the connection itself, after a broken connection or an error of the server."""
MAX_OUTAGE_S = 60.0
"""s that a transfer waits for a server that does not answer, from the first failure on."""
MAX_PAUSE_S = 5.0
"""Longest pause between two attempts, s."""


def with_retries(call: Callable[[], T], *, wait_for_server: bool = False, progress: Callable[[], int] = lambda: 0) -> T:
    """Return `call()`; where the server or the network fails, repeat it with growing pauses.

    wait_for_server: keep on for `MAX_OUTAGE_S` where the server does not answer at all, as during a transfer.
    progress: how far `call` has got. An attempt that gets further than those before it resets attempts and time.
    """
    import urllib3
    from minio.error import S3Error, ServerError

    failing_since, attempt, reached = 0.0, 0, progress()
    while True:
        try:
            return call()
        except (urllib3.exceptions.HTTPError, ServerError, S3Error) as error:
            if not attempt or progress() > reached:
                failing_since, attempt, reached = time.monotonic(), 0, progress()
            attempt += 1
            is_unreachable = isinstance(error, urllib3.exceptions.MaxRetryError)  # after the connection's own retries
            exhausted = attempt >= MAX_ATTEMPTS or is_unreachable
            if wait_for_server:
                exhausted = exhausted and time.monotonic() - failing_since > MAX_OUTAGE_S
            is_permanent = isinstance(error, S3Error) and error.code not in TRANSIENT_CODES
            if exhausted or is_permanent or is_certificate_error(error):
                raise
            time.sleep(min(MAX_PAUSE_S, 0.25 * 2**attempt))


def connection_retries() -> Any:
    """Return the retry policy of the connection, a `urllib3.Retry`."""
    import urllib3

    return urllib3.Retry(total=CONNECTION_RETRIES, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504])
