"""Retry requests within the connection, and wait as long as the server asks to, up to a limit."""

import logging
import time
from contextlib import suppress
from typing import Any

import urllib3

from shared.store.environment import endpoint
from shared.store.failures import TRANSIENT_STATUSES, reason
from shared.store.http import limits
from shared.system.log import log

logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # `BoundedRetry` logs the same in words


class BoundedRetry(urllib3.Retry):
    """A policy that logs retries, bounds `Retry-After`, and ignores one that cannot be read."""

    def increment(self, method: str | None = None, url: str | None = None, **options: Any) -> "BoundedRetry":  # type: ignore[override]
        """Return the policy for the next attempt, which follows at once or soon; raises where there is none left."""
        following = super().increment(method, url, **options)
        if error := options.get("error"):
            log.warning("%s: %s; trying again", endpoint()[0], reason(error))
        return following

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        """Return the seconds to wait; None where the server does not say."""
        with suppress(urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
            seconds = super().get_retry_after(response)
            return None if seconds is None else min(seconds, limits.MAX_RETRY_AFTER_S)
        return None

    def sleep_for_retry(self, response: urllib3.BaseHTTPResponse) -> bool:
        """Wait as the server asks; returns whether it does."""
        seconds = self.get_retry_after(response)
        if not seconds:
            return False
        log.warning("%s is busy (status %d) and asks to wait: %.3g s", endpoint()[0], response.status, seconds)
        time.sleep(seconds)
        return True


def bounded_retry(retries: int) -> BoundedRetry:
    """Return the policy for this number of retries. The last answer is returned, whatever its status."""
    return BoundedRetry(total=retries, backoff_factor=0.2, status_forcelist=TRANSIENT_STATUSES, raise_on_status=False)
