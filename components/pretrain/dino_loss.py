"""Loss of self-distillation: DINO, Caron et al. 2021, arXiv:2104.14294; targets as in DINOv2, arXiv:2304.07193."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.system.collectives import maximum, mean, total

STUDENT_TEMPERATURE = 0.1
TEACHER_TEMPERATURE = 0.04


def cross_entropy(teacher: Tensor, student: Tensor) -> Tensor:
    """H(teacher, student) of probabilities and logits, (..., K) and (..., K) -> (...)."""
    return -(teacher * F.log_softmax(student.float() / STUDENT_TEMPERATURE, dim=-1)).sum(dim=-1)


def sinkhorn_targets(logits: Tensor, rounds: int = 3) -> Tensor:
    """Teacher's logits (M, K) -> probabilities (M, K), sharpened, and balanced so that all prototypes are used alike.

    Sinkhorn's algorithm over the batch, as in DINOv2 (Oquab et al. 2023, section 4), replaces DINO's running centre:
    with small batches the centre lags behind, and training collapses.
    """
    scaled = logits.float() / TEACHER_TEMPERATURE
    q = (scaled - maximum(scaled.max())).exp()
    for _ in range(rounds):
        q = q / total(q.sum(dim=0, keepdim=True)).clamp_min(1e-30)
        q = q / q.sum(dim=1, keepdim=True).clamp_min(1e-30)
    return q


def dino_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean of H(teacher of view a, student of view b) over a != b (DINO, eq. 3).

    teacher: (2, N, K) probabilities of the global views; student: (V, N, K) logits of all views, the same two first.
    """
    pairs = [(a, b) for a in range(len(teacher)) for b in range(len(student)) if a != b]
    return torch.stack([mean(cross_entropy(teacher[a], student[b])) for a, b in pairs]).mean()
