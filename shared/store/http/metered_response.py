"""Read an answer from a socket as long as it makes progress, and no more of it than fits into memory."""

import io
import socket
import time
from http.client import HTTPResponse
from typing import Any

from shared.store.failures import StalledError
from shared.store.http import limits
from shared.system.errors import UserError


class MeteredResponse(HTTPResponse):
    """An answer; a read raises StalledError where the server sends too little, UserError where it sends too much."""

    def __init__(self, sock: socket.socket, *args: Any, patience_s: float, streamed: bool, **options: Any) -> None:
        """patience_s: time for `MIN_PROGRESS_BYTES`; streamed: the body of a good answer may have any length."""
        super().__init__(sock, *args, **options)
        self._streamed = streamed
        self._meter = _Meter(self.fp.detach(), sock, patience_s)
        self.fp = io.BufferedReader(self._meter)

    def begin(self) -> None:
        """Read status and headers."""
        super().begin()
        if self._streamed and self.status in (200, 206):
            self._meter.max_bytes = None


class _Meter(io.RawIOBase):
    """Passes on what a socket receives, and counts bytes and the time spent on waiting for them."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, patience_s: float) -> None:
        self._raw, self._sock, self._patience_s = raw, sock, patience_s
        self.max_bytes: int | None = limits.MAX_ANSWER_BYTES
        self._received = 0
        self._recent_bytes, self._recent_s = 0, 0.0
        """Since the last time that `MIN_PROGRESS_BYTES` were complete."""
        sock.settimeout(limits.ANSWER_S)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._received:
            self._sock.settimeout(max(self._patience_s - self._recent_s, 1e-3))
        began = time.monotonic()
        try:
            count = self._raw.readinto(buffer) or 0
        except TimeoutError as error:
            raise StalledError from error
        self._count(count, time.monotonic() - began)
        return count

    def _count(self, count: int, waited_s: float) -> None:
        self._received += count
        if self.max_bytes is not None and self._received > self.max_bytes:
            raise UserError(
                f"AWS_ENDPOINT_URL: an answer of more than {self.max_bytes} bytes where S3 sends a short one; "
                "check that it is the address of an S3 server"
            )
        self._recent_bytes += count
        if self._recent_bytes >= limits.MIN_PROGRESS_BYTES:
            self._recent_bytes, self._recent_s = 0, 0.0
        elif self._received > count:  # the wait for the first byte has a limit of its own
            self._recent_s += waited_s
            if count and self._recent_s >= self._patience_s:
                raise StalledError

    def close(self) -> None:
        self._raw.close()
        super().close()
