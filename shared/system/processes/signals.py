"""Handle the signals that ask a process to end: SIGTERM, and SIGHUP, which a closed terminal sends."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def stop_on_signals(handler: Callable[..., Any]) -> dict[signal.Signals, Any]:
    """Call `handler` on each of them, unless it is ignored as `nohup` arranges; return the handlers before."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, old in before.items():
        if number != signal.SIGHUP or old is not signal.SIG_IGN:
            signal.signal(number, handler)
    return before


@contextmanager
def interrupting(handler: Callable[..., Any]) -> Iterator[None]:
    """Handle them with `handler` within the block."""
    before = stop_on_signals(handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)
