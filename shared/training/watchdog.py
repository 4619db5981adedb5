"""Stop a training that has diverged or collapsed."""

import math

from shared.system.errors import UserError


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
