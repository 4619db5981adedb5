"""Sum, mean and maximum over the processes of a data-parallel training. In a single process they change nothing."""

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    """Return the number of this process; 0 for the first or only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def part(count: int) -> slice:
    """Return which of `count` samples this process computes: all of them where it is the only one."""
    if not dist.is_initialized():
        return slice(0, count)
    size = dist.get_world_size()
    return slice(count * rank() // size, count * (rank() + 1) // size)


def total(x: Tensor) -> Tensor:
    """Return the sum over all processes, with gradient."""
    if not dist.is_initialized():
        return x
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(x)


def mean(x: Tensor) -> Tensor:
    """Return the mean over the elements of all processes, with gradient; a scalar."""
    if not dist.is_initialized():
        return x.mean()
    return total(x.sum()) / total(x.new_tensor(x.numel()))


@torch.no_grad()
def maximum(x: Tensor) -> Tensor:
    """Return the maximum over all processes, element by element, without gradient."""
    if dist.is_initialized():
        x = x.clone()
        dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


def wait_for_all() -> None:
    """Wait until every process has called this."""
    if dist.is_initialized():
        dist.barrier()
