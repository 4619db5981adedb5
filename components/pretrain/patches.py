"""Cut images into the patches of a vision transformer, and join them again."""

from torch import Tensor


def patches_of(x: Tensor, patch: int) -> Tensor:
    """Images (N, C, H, W) -> patches (N, T, patch² * C), pixels row by row, channels innermost."""
    n, c, height, width = x.shape
    grid = x.reshape(n, c, height // patch, patch, width // patch, patch)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, patch * patch * c)


def images_of(patches: Tensor, patch: int, height: int, width: int) -> Tensor:
    """The inverse of `patches_of`: (N, T, patch² * C) -> (N, C, height, width)."""
    grid = patches.reshape(len(patches), height // patch, width // patch, patch, patch, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, height, width)
