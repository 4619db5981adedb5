"""Seed random generators, and derive the generator of every training step."""

import os
import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed torch's, numpy's and Python's generators, and request deterministic algorithms from torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("warn")  # as use_deterministic_algorithms, which imports the compiler: 3 s
    torch.backends.cudnn.benchmark = False


def step_generator(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    """Return the generator of one step, whatever was drawn before; streams of the same step are independent."""
    return np.random.default_rng([seed, step, stream])


def torch_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """Return the same for torch, on the CPU."""
    return torch.Generator().manual_seed(int(step_generator(seed, step, stream).integers(2**63)))
