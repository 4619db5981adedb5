"""Save and resume a training.

What a step computes must follow from (seed, step) alone, see `shared.training.seeds`. A run that was killed and started
again then ends in the same weights, bit for bit, as one that was not.

>>> checkpoint = Checkpoint(model=model, optimiser=optimiser)
>>> first, history = checkpoint.resume()
>>> for step in range(first, steps):
...     set_learning_rate(optimiser, cosine(step, steps, peak=1e-3, warmup=10))
...     ...
...     history.append((step, loss))
...     checkpoint.save_if_due(step + 1, history)
"""

import os
import pickle
import random
import socket
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from shared.system import collectives
from shared.system.log import log
from shared.training import checkpoint_location
from shared.training.history import History

SECONDS = "CYTOLOOM_CHECKPOINT_SECONDS"


class HasState(Protocol):
    """A module or an optimiser: what a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Restore what `state_dict` returned."""


class Checkpoint:
    """The state of a training loop in one file: modules, optimiser, random generators, step and history.

    The file is written atomically, every `CYTOLOOM_CHECKPOINT_SECONDS` (default 30); the interval changes no result.
    Without a location, as when `run` is called by hand, nothing is written. Of several processes the first one writes,
    and all read.
    """

    def __init__(self, **parts: HasState) -> None:
        self.parts = parts
        folder = checkpoint_location.folder()
        self.path = folder / checkpoint_location.FILE if folder else None
        self.interval = float(os.environ.get(SECONDS) or 30)
        self._last = time.monotonic()

    def resume(self) -> tuple[int, History]:
        """Restore the last saved state; return the step to continue with and the history so far, or (0, [])."""
        if collectives.rank() == 0:
            checkpoint_location.download()
        collectives.wait_for_all()
        saved = read_checkpoint(self.path) if self.path else None
        if saved is None:
            return 0, []
        for name, part in self.parts.items():
            part.load_state_dict(saved["parts"][name])
        _set_random_state(saved["random"])
        log.info("resuming from the checkpoint at step %d", saved["step"])
        return saved["step"], [(int(step), float(loss)) for step, loss in saved["history"]]

    def save_if_due(self, step: int, history: History) -> None:
        """Save where the interval has passed; step: number of steps done."""
        if self.path and collectives.rank() == 0 and time.monotonic() - self._last >= self.interval:
            self.save(step, history)
            self._last = time.monotonic()

    def save(self, step: int, history: History) -> None:
        """Save now."""
        if self.path is None:
            return
        content = {
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "random": _random_state(),
            "step": step,
            "history": [list(item) for item in history],
        }
        try:
            _write_atomically(self.path, content)
            checkpoint_location.upload()
        except FileNotFoundError:  # a concurrent run with the same settings saves here as well, or ends and cleans up
            log.warning("%s: another run of this task removed it while a checkpoint was saved", self.path.parent)


def _write_atomically(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("wb") as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint, tensors and plain values only; None where it does not exist or cannot be read."""
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError) as error:
        log.warning("%s: cannot be read (%s); training starts anew", path, str(error).splitlines()[0])
        return None


def _random_state() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
