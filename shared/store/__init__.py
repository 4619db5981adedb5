"""Objects in S3: bring an artifact here, send one there, checked by content.

`shared.store.s3` says where the server is and what happens when it is not. What was broken off goes on where it was, both
ways: parts that have arrived do not travel again.
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
