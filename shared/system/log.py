"""Write plain log lines to standard error: `12:04:31 ingest  37 images`."""

import logging
import sys

from shared.system.names import visible_lines

log = logging.getLogger("cytoloom")


class _Formatter(logging.Formatter):
    """Escapes what a name could change on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible_lines(super().format(record))


def set_up_logging(name: str) -> None:
    """Log to standard error under the stage's name. Safe to call again."""
    log.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(f"%(asctime)s {name}  %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
