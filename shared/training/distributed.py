"""Train in several processes, of which each computes its part of every batch.

All processes run the whole stage. Terms of a loss are summed over the processes by `shared.system.collectives.total`,
so that each process has the loss of the whole batch, and its gradient times the number of processes. torch's
DistributedDataParallel averages gradients, so that the weights are those of one process with the whole batch, up to
rounding. `shared.stage.execution.worker_processes` starts the processes.
"""

import warnings
from typing import cast

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def data_parallel(module: nn.Module) -> nn.Module:
    """Wrap a module so that backward averages its gradients over all processes; alone, return the module itself.

    Every parameter that requires a gradient must take part in each call, and only calls of the wrapper count.
    """
    if not dist.is_initialized():
        return module
    warnings.filterwarnings("ignore", "Grad strides do not match")  # convolutions in channels_last; costs one copy
    return cast("nn.Module", DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True))


@torch.no_grad()
def average_buffers(module: nn.Module) -> None:
    """Set every floating-point buffer to its mean over all processes; alone, change nothing.

    Batch norms see the images of their own process alone; their running statistics become those of all images.
    """
    if dist.is_initialized():
        for buffer in module.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer.div_(dist.get_world_size()))
