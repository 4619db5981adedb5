"""Retry requests to the store: how often, how long, and after which errors."""

import time
from collections.abc import Callable
from typing import TypeVar

from shared.store.environment import endpoint
from shared.store.failures import is_busy, is_certificate_error, is_transient, reason
from shared.store.http import limits
from shared.system.log import log

T = TypeVar("T")

MAX_ATTEMPTS = 4
"""Attempts of a request, each with the connection's own retries."""
CONNECTION_RETRIES = 3
"""Retries of a request by the connection itself, after a broken connection or an error of the server."""
MAX_OUTAGE_S = 60.0
"""s that a transfer waits for a server that does not answer, and any request for one that is busy, from the first
failure on."""
MAX_PAUSE_S = 5.0
"""Longest pause between two attempts, s."""


def with_retries(call: Callable[[], T], *, wait_for_server: bool = False, progress: Callable[[], int] = lambda: 0) -> T:
    """Return `call()`; where the server or the network fails, repeat it with growing pauses.

    wait_for_server: keep on for `MAX_OUTAGE_S` where the server does not answer at all, as during a transfer.
    progress: bytes that `call` has transferred. Failures are counted anew, and so is their time, after an attempt that
    gets further by `MIN_PROGRESS_BYTES`: a server that sends a byte an attempt would be asked for ever.
    """
    import urllib3
    from minio.error import S3Error, ServerError

    failing_since, attempt, reached = 0.0, 0, progress()
    while True:
        try:
            return call()
        except (urllib3.exceptions.HTTPError, ServerError, S3Error) as error:
            before, reached = reached, progress()
            if not attempt or reached - before >= limits.MIN_PROGRESS_BYTES:
                failing_since, attempt = time.monotonic(), 0
            attempt += 1
            failing_s = time.monotonic() - failing_since
            if _is_permanent(error) or _is_exhausted(error, attempt, failing_s, wait_for_server):
                raise
            if attempt == 1:
                log.warning("%s: %s; trying again", endpoint()[0], reason(error))
            time.sleep(min(MAX_PAUSE_S, 0.25 * 2**attempt))


def _is_permanent(error: Exception) -> bool:
    """Say whether the same request would fail again."""
    from minio.error import S3Error

    return (isinstance(error, S3Error) and not is_transient(error)) or is_certificate_error(error)


def _is_exhausted(error: Exception, attempt: int, failing_s: float, wait_for_server: bool) -> bool:
    import urllib3

    if is_busy(error):
        return failing_s > MAX_OUTAGE_S
    is_unreachable = isinstance(error, urllib3.exceptions.MaxRetryError)  # after the connection's own retries
    exhausted = attempt >= MAX_ATTEMPTS or is_unreachable
    return exhausted and (failing_s > MAX_OUTAGE_S or not wait_for_server)
