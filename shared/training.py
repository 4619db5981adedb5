"""What training loops have in common: seed, schedule, average of weights, watchdog, checkpoint. No trainer.

What a step sees must follow from (seed, step) alone, see `step_generator`; then a run that was killed and started
again ends in the same weights, bit for bit, as one that was not.

>>> checkpoint = Checkpoint(model=model, optimiser=optimiser)
>>> first, history = checkpoint.resume()
>>> for step in range(first, steps):
...     set_learning_rate(optimiser, cosine(step, steps, peak=1e-3, warmup=10))
...     ...
...     history.append((step, loss))
...     checkpoint.save_if_due(step + 1, history)
"""

import math
import os
import pickle
import random
import socket
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from shared import checkpoints, distributed
from shared.errors import UserError
from shared.log import log

History = list[tuple[int, float]]
"""(step, loss)"""
SECONDS = "CYTOLOOM_CHECKPOINT_SECONDS"


class HasState(Protocol):
    """A module, an optimiser: what a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """The opposite."""
        ...


def seed_everything(seed: int) -> None:
    """Seed torch, numpy's and Python's own generators, and ask torch for deterministic algorithms."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("warn")  # as use_deterministic_algorithms, which imports the compiler: 3 s
    torch.backends.cudnn.benchmark = False


def step_generator(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    """The numbers that step `step` of the run with this seed draws, whatever happened before; one per stream."""
    return np.random.default_rng([seed, step, stream])


def torch_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """As `step_generator`, for torch on the CPU."""
    return torch.Generator().manual_seed(int(step_generator(seed, step, stream).integers(2**63)))


def cosine(step: int, steps: int, *, peak: float, warmup: int, floor: float = 0.0) -> float:
    """Value of step 0..steps-1: rises linearly to `peak` over `warmup` steps, then half a cosine down to `floor`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group, times the group's `scale` where it has one."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters for AdamW: decay for matrices and kernels, none for biases, norms and tokens."""
    kept = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    plain = [p.squeeze().ndim < 2 for _, p in kept]
    return [
        {"params": [p for (_, p), flat in zip(kept, plain, strict=True) if not flat], "weight_decay": weight_decay},
        {"params": [p for (_, p), flat in zip(kept, plain, strict=True) if flat], "weight_decay": 0.0},
    ]


def adamw(
    module: nn.Module, *, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`, all parameters in one kernel: a third of the time of the loop on a CPU."""
    return torch.optim.AdamW(parameter_groups(module, weight_decay), lr=learning_rate, betas=betas, fused=True)


@torch.no_grad()
def average(target: nn.Module, source: nn.Module, decay: float) -> None:
    """Exponential moving average, in place: target <- decay * target + (1 - decay) * source; buffers are copied."""
    for mean, new in zip(target.parameters(), source.parameters(), strict=True):
        mean.lerp_(new.detach(), 1 - decay)
    for copy, buffer in zip(target.buffers(), source.buffers(), strict=True):
        copy.copy_(buffer)


# --- watchdog -----------------------------------------------------------------------------------------------------


def watch_loss(loss: float, step: int) -> None:
    """Stop the run where the loss is no longer a number. Raises UserError."""
    if not math.isfinite(loss):
        raise UserError(
            f"step {step}: the loss is {loss}; training has diverged. Lower --learning_rate, or raise --batch_size"
        )


def watch_spread(spread: float, floor: float, what: str, step: int) -> None:
    """Stop the run where the network's output has become the same for every input. Raises UserError."""
    if not spread > floor:  # also where it is NaN
        raise UserError(
            f"step {step}: training has collapsed: {what} is {spread:.3g}, at least {floor:.3g} is expected. "
            "Lower --learning_rate, raise --batch_size, or check that the images are not constant"
        )


# --- checkpoint ---------------------------------------------------------------------------------------------------


class Checkpoint:
    """All that a training loop needs to go on: modules, optimiser, random states, step and history, in one file.

    Written as a whole or not at all, every `CYTOLOOM_CHECKPOINT_SECONDS` (30 where it is not set).
    How often it is written changes no result. Without a folder (`run` called by hand) it does nothing. Of several
    processes the first one writes, and all read.
    """

    def __init__(self, **parts: HasState) -> None:
        self.parts = parts
        folder = checkpoints.folder()
        self.path = folder / checkpoints.FILE if folder else None
        self.every = float(os.environ.get(SECONDS) or 30)
        self._last = time.monotonic()

    def resume(self) -> tuple[int, History]:
        """Restore the last saved state: the step to go on from and the history so far, or (0, [])."""
        if distributed.rank() == 0:
            checkpoints.bring()
        distributed.wait_for_all()
        saved = read_checkpoint(self.path) if self.path else None
        if saved is None:
            return 0, []
        for name, part in self.parts.items():
            part.load_state_dict(saved["parts"][name])
        _set_random_state(saved["random"])
        log.info("going on from the checkpoint at step %d", saved["step"])
        return saved["step"], [(int(step), float(loss)) for step, loss in saved["history"]]

    def save_if_due(self, step: int, history: History) -> None:
        """Save where enough time has passed; `step`: steps done so far."""
        if self.path and distributed.rank() == 0 and time.monotonic() - self._last >= self.every:
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
        temporary = self.path.with_name(f"{self.path.name}.{socket.gethostname()}-{os.getpid()}.partial")
        try:
            # a run beside this one, with the same settings, may save here as well, or end and remove the folder
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                torch.save(content, stream)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.path)
            checkpoints.publish()
        except FileNotFoundError:
            log.warning("%s: removed while a checkpoint was saved, by another run of this task", self.path.parent)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """A checkpoint's contents, tensors and plain values only; None where there is none or it cannot be read."""
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, pickle.UnpicklingError) as error:
        log.warning("%s: cannot be read (%s); training begins again", path, str(error).splitlines()[0])
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


def to_device(array: np.ndarray, device: str) -> Tensor:
    """Images (N, H, W, C) -> tensor (N, C, H, W) float32 on the device."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2), np.float32)).to(device)
