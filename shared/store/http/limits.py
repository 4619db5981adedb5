"""Limits of a request to the S3 server, and of its answer."""

CONNECT_S = 10.0
"""s until a connection is made, TLS included."""
ANSWER_S = 120.0
"""s from the end of a request to the first byte of its answer."""
STALL_S = 60.0
"""s in which `MIN_PROGRESS_BYTES` must travel, in either direction; else the connection is closed."""
COMPLETION_S = 600.0
"""The same for the answer to a POST: Amazon sends a blank now and then while it joins the parts of an upload."""
MIN_PROGRESS_BYTES = 64 * 2**10
"""Bytes that count as progress: of a connection within `STALL_S`, and of a transfer between two failures."""
MAX_ANSWER_BYTES = 64 * 2**20
"""Bytes of an answer that is read into memory: a page of a listing, an error, a manifest."""
MAX_RETRY_AFTER_S = 60.0
"""s that a server may ask to wait by `Retry-After`; what is beyond that is ignored."""
