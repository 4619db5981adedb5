"""Artifacts and objects in S3: fetch and send them, verified by content.

How often requests are retried stands in `shared.store.retries`, the server's settings in `shared.store.environment`.
An interrupted transfer continues where it stopped, in both directions: parts that have arrived do not travel again.
"""

from shared.store.download import borrowed_prefix, fetch, fetch_prefix
from shared.store.objects import exists, find, get, listing, probe, put, remove
from shared.store.upload import claim, refuse_finished, send

__all__ = [
    "borrowed_prefix",
    "claim",
    "exists",
    "fetch",
    "fetch_prefix",
    "find",
    "get",
    "listing",
    "probe",
    "put",
    "refuse_finished",
    "remove",
    "send",
]
