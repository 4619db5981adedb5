"""Write plain log lines to standard error: `12:04:31 ingest  37 images`."""

import logging
import sys

log = logging.getLogger("cytoloom")


def set_up_logging(name: str) -> None:
    """Log to standard error under the stage's name. Safe to call again."""
    log.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s {name}  %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
