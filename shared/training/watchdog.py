"""Stop a training that has diverged or collapsed."""

import math

from shared.system.errors import UserError


def watch_loss(loss: float, step: int) -> None:
    """Raise UserError where the loss is not finite."""
    if not math.isfinite(loss):
        raise UserError(
            f"step {step}: the loss is {loss}: training has diverged; lower --learning_rate, or raise --batch_size"
        )


def watch_spread(spread: float, floor: float, name: str, step: int) -> None:
    """Raise UserError where the network's output has become the same for every input.

    spread: standard deviation of the output called `name`, at least `floor` in a sound training.
    """
    if not spread > floor:  # also where it is NaN
        raise UserError(
            f"step {step}: {name} is {spread:.3g}, below {floor:.3g}: training has collapsed; "
            "lower --learning_rate, raise --batch_size, or check that the images are not constant"
        )
