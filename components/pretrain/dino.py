"""Self-distillation: DINO, Caron et al. 2021, arXiv:2104.14294, with iBOT's patch term, Zhou et al. 2022,
arXiv:2111.07832.

A student matches the output of a teacher, its own moving average, across views of a crop (DINO eq. 1 to 3); and on
patches hidden from it, the teacher's output at the same place (iBOT eq. 2), which is what dense features need. Unless
told otherwise, the texture of every patch as well, see `texture.py`: what the two terms alone learn in a short training
may tell cells from background worse than random weights do.
"""

import copy
import math

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from components.pretrain.patches import patches_of
from components.pretrain.texture import DESCRIPTORS, TEXTURE_SHARE, Texture
from shared.data.augmentation import augmented, rotated_square
from shared.data.crops import Crops
from shared.models.backbones.blocks import initialise
from shared.models.backbones.vit import Encoder
from shared.system.collectives import largest, mean, part, total
from shared.training.moving_average import average
from shared.training.seeds import step_generator, torch_generator
from shared.training.tensors import to_device
from shared.training.watchdog import watch_spread

PROTOTYPES = 256
STUDENT_TEMPERATURE = 0.1
TEACHER_TEMPERATURE = 0.04
LOCAL_VIEWS = 2
GLOBAL_AREA, LOCAL_AREA = (0.5, 1.0), (0.1, 0.4)
"""Smallest and largest share of a crop's area that a view shows."""
GLOBAL_SIZE, LOCAL_SIZE = 0.75, 0.375
"""A view's px on a side, as a share of the crop's: about as large as in the image, and with half of the patches."""
HIDDEN = 0.3
"""Share of the student's patches that the patch term hides."""


class Head(nn.Module):
    """Projection head: three linear layers, l2-normalised, onto unit prototypes. (..., width) -> (..., PROTOTYPES).

    What comes in is standardised over the batch. At first all tokens are nearly alike, so would be their logits and the
    teacher's targets; with it the targets tell tokens apart from the first step, and hundreds of steps are saved.
    """

    def __init__(self, width: int, inside: int = 512, bottleneck: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, inside), nn.GELU(), nn.Linear(inside, inside), nn.GELU(), nn.Linear(inside, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.randn(PROTOTYPES, bottleneck))
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> cosine with every prototype (..., PROTOTYPES)."""
        rows = standardised(x.flatten(0, -2))
        return F.normalize(self.mlp(rows.reshape(x.shape)), dim=-1) @ F.normalize(self.prototypes, dim=-1).T


def standardised(rows: Tensor, eps: float = 1e-5) -> Tensor:
    """(M, width) less its mean, by its standard deviation, column by column; over the rows of all processes."""
    if not dist.is_initialized():
        return F.batch_norm(rows, None, None, training=True, eps=eps)
    rows = rows.float()
    count = total(rows.new_tensor(len(rows)))
    centred = rows - total(rows.sum(dim=0)) / count
    return centred * (total((centred**2).sum(dim=0)) / count + eps).rsqrt()


class Network(nn.Module):
    """Encoder, heads for the class token and for patches, and the token that stands for a hidden patch."""

    def __init__(self, encoder: Encoder, *, texture: bool = False) -> None:
        """texture: a head for that of patches as well."""
        super().__init__()
        self.encoder = encoder
        self.head = Head(encoder.architecture.width)
        self.patch_head = Head(encoder.architecture.width)
        self.mask_token = nn.Parameter(torch.zeros(encoder.architecture.width))
        if texture:
            told = DESCRIPTORS * encoder.config.input.channels
            self.texture_head = nn.Linear(encoder.architecture.width, told).apply(initialise)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) -> class token (N, width) and patch tokens (N, T, width). hidden: (N, T) bool."""
        out = self.encoder.encode(self.encoder.embed(x, hidden, self.mask_token), self.encoder.grid(x))
        return out[:, 0], out[:, 1:]


def cross_entropy(teacher: Tensor, student: Tensor) -> Tensor:
    """H(teacher, student) of probabilities and logits, (..., K) and (..., K) -> (...)."""
    return -(teacher * F.log_softmax(student.float() / STUDENT_TEMPERATURE, dim=-1)).sum(dim=-1)


def targets(logits: Tensor, rounds: int = 3) -> Tensor:
    """Teacher's probabilities (M, K) of its logits: sharpened, and balanced so that all prototypes are used alike.

    Sinkhorn's algorithm over the batch, as DINOv2 has it (Oquab et al. 2023, arXiv:2304.07193, section 4) in place of
    DINO's running centre: with the small batches of a small machine the centre lags, and training collapses.
    """
    scaled = logits.float() / TEACHER_TEMPERATURE
    q = (scaled - largest(scaled.max())).exp()
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


def momentum(step: int, steps: int) -> float:
    """How slowly the teacher follows: rises to 1 by half a cosine (DINO, section 3.1), from DINO's 0.996 in long runs.

    In a short one 0.996 would leave the teacher at its random start; there it averages over a fifth of the steps.
    """
    start = min(0.996, max(0.9, 1 - 5 / steps))
    return 1 - (1 - start) * (math.cos(math.pi * step / steps) + 1) / 2


class DinoObjective:
    """What the training loop needs: the loss of a step, the teacher's update, and the watchdog."""

    weight_decay = 0.04
    betas = (0.9, 0.999)

    def __init__(
        self, encoder: Encoder, crops: Crops, seed: int, device: str, *, texture: Tensor | None = None
    ) -> None:
        """texture: some of the images (N, C, S, S), where texture is to be told as well."""
        self.student = Network(encoder, texture=texture is not None).to(device)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.texture = None
        if texture is not None:
            self.texture = Texture(encoder.architecture.patch, encoder.config.input.channels)
            self.texture.fit(patches_of(texture, encoder.architecture.patch))
            self.texture.to(device)
        self.crops, self.seed, self.device = crops, seed, device
        self.spread = 1.0
        """Running standard deviation of the teacher's patch features of length 1, averaged over features."""

    @property
    def module(self) -> nn.Module:
        """What the optimiser trains."""
        return self.student

    @property
    def encoder(self) -> Encoder:
        """The teacher's encoder, the better one of the two (DINO, section 5.2)."""
        return self.teacher.encoder

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What a checkpoint holds beside the optimiser."""
        return {"student": self.student, "teacher": self.teacher}

    def loss(self, step: int, batch_size: int) -> Tensor:
        """Loss of this step's views: class tokens across views; hidden patches, and textures, within the global views.

        Textures weigh beside the others as they do with MAE, each measured by what knowing nothing gives. The sum is
        not divided by that: so large, its gradients are clipped in the first steps at least, and more is learned.
        """
        mine = part(batch_size)
        large, small = (to_device(views, self.device) for views in self._views(step, batch_size, mine))
        count = (large.shape[2] // self.encoder.architecture.patch) ** 2
        noise = torch.rand(2, batch_size, count, generator=torch_generator(self.seed, step, 1))[:, mine].flatten(0, 1)
        hidden = (noise.argsort(dim=1).argsort(dim=1) < max(1, round(HIDDEN * count))).to(self.device)
        with torch.no_grad():
            views, patches = self.teacher(large)
            wanted = targets(self.teacher.head(views)), targets(self.teacher.patch_head(patches[hidden]))
            spread = F.normalize(patches.float().flatten(0, 1), dim=1).std(dim=0).mean().item()
            self.spread = 0.9 * self.spread + 0.1 * spread
        large_views, large_patches = self.student(large, hidden)
        logits = self.student.head(torch.cat([large_views, self.student(small)[0]]))
        n = len(large) // 2
        view_loss = dino_loss(wanted[0].reshape(2, n, -1), logits.reshape(2 + LOCAL_VIEWS, n, -1))
        patch_loss = mean(cross_entropy(wanted[1], self.student.patch_head(large_patches[hidden])))
        own, unknown = view_loss + patch_loss, 2 * math.log(PROTOTYPES)
        if self.texture is None:
            return own
        aim = self.texture(patches_of(large, self.encoder.architecture.patch))
        missed = F.mse_loss(self.student.texture_head(large_patches).float(), aim, reduction="none")
        return own + TEXTURE_SHARE / (1 - TEXTURE_SHARE) * unknown * mean(missed)

    def _views(self, step: int, count: int, mine: slice) -> tuple[np.ndarray, np.ndarray]:
        """Of n = `mine` of `count` crops: global views (2 * n, S, S, C), local views (LOCAL_VIEWS * n, s, s, C)."""
        rng = step_generator(self.seed, step)
        generators = rng.spawn(count)[mine]
        crops = list(zip(self.crops.batch(count, rng, mine), generators, strict=True))
        patch = self.encoder.architecture.patch
        large, small = (
            max(patch, int(self.crops.size * share) // patch * patch) for share in (GLOBAL_SIZE, LOCAL_SIZE)
        )
        return (
            np.stack([view(crop, large, GLOBAL_AREA, own) for _ in range(2) for crop, own in crops]),
            np.stack([view(crop, small, LOCAL_AREA, own) for _ in range(LOCAL_VIEWS) for crop, own in crops]),
        )

    def after_step(self, step: int, steps: int) -> None:
        """Move the teacher; raise UserError where all patches look alike to it."""
        average(self.teacher, self.student, momentum(step, steps))
        if step >= 100:
            watch_spread(self.spread, 1e-3, "the spread of the teacher's features", step)


def view(crop: np.ndarray, size: int, area: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """One view (size, size, C) of a crop: a square of that share of its area, turned, another picture of the place.

    Half of the views are turned by right angles, half by any.
    """
    length = crop.shape[0]
    side = length * rng.uniform(*area) ** 0.5
    y, x = rng.uniform((side - 1) / 2, length - 1 - (side - 1) / 2, size=2)
    degrees = rng.uniform(0, 360) if rng.random() < 0.5 else 90 * int(rng.integers(4))
    part = rotated_square(crop, size, centre=(y, x), side=side, degrees=degrees, flip=bool(rng.integers(2)))
    return augmented(part, rng)
