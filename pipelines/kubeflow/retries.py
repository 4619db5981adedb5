"""Compute the window that all attempts of a task must fit in.

Kubeflow passes a task's `backoffMaxDuration` to Argo as `maxDuration`: the time from the start of the first attempt
after which there is no further one, and an attempt that still runs is stopped. It is no limit to the pauses.

>>> retry_window(retries=0, timeout=60)
3660
"""

BACKOFF_FACTOR = 2
"""Each pause is as many times as long as the one before."""
MARGIN = 3600
"""s of each attempt besides the running time of its pod: to wait for a free node and to pull the image."""


def retry_window(retries: int, timeout: int, pause: float = 0, factor: float = BACKOFF_FACTOR) -> int:
    """Return the window in s. timeout: of each attempt, s; pause: before the first retry, s."""
    pauses = sum(pause * factor**number for number in range(retries))
    return (retries + 1) * (timeout + MARGIN) + int(pauses)
