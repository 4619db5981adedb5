"""Data-parallel training inside one task: a process for each GPU, started and watched by torchrun's launcher.

Every process runs the whole stage, but of each step's batch it computes its own `part` only. What a loss is made of is
summed over all processes by `total`, and gradients are averaged: loss and weights are those of one process with the
whole batch, up to rounding. The first process's outputs are the stage's; the others write into the void.

In a single process all of this does nothing.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

# --- in a training loop -------------------------------------------------------------------------------------------


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over all processes, in one message.

    A loss whose parts went through `total` has, in each process, its gradient times the number of processes; the mean
    is the gradient of the whole.
    """
    if not dist.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


# --- starting the processes ---------------------------------------------------------------------------------------
