"""Processes that end with the one that started them, however that ends."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable


def dies_with(parent: int) -> Callable[[], None]:
    """To be called in a child, or given to `preexec_fn`: from then on Linux kills it when process `parent` ends."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def arrange() -> None:
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return arrange
