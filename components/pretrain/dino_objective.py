"""Training by DINO: views, loss, the teacher's update and watchdog.

A student matches the output of a teacher, its own moving average, across views of a crop (DINO eq. 1 to 3), and on
patches hidden from it the teacher's output at the same position (iBOT eq. 2), which dense features need. By default the
student predicts the texture of every patch as well, see `texture.py`: after a short training by the two terms alone,
features may separate cells from background worse than those of random weights.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.pretrain.dino import PROTOTYPES, DinoNetwork
from components.pretrain.dino_loss import cross_entropy, dino_loss, sinkhorn_targets
from components.pretrain.patches import patches_of
from components.pretrain.texture import TEXTURE_SHARE, Texture
from shared.data.augmentation import augment_intensity, rotate_square
from shared.data.crops import Crops
from shared.models.backbones.vit import Encoder
from shared.system.collectives import mean, part
from shared.training.moving_average import update_average
from shared.training.seeds import step_generator, torch_generator
from shared.training.tensors import to_device
from shared.training.watchdog import watch_spread

LOCAL_VIEWS = 2
GLOBAL_AREA, LOCAL_AREA = (0.5, 1.0), (0.1, 0.4)
"""Minimum and maximum share of a crop's area that a view shows."""
GLOBAL_SIZE, LOCAL_SIZE = 0.75, 0.375
"""Side of a view as a share of the crop's: at about the image's scale, and with half of the patches."""
HIDDEN_SHARE = 0.3
"""Share of the student's patches that the patch term hides."""


@dataclass(frozen=True)
class DinoBatch:
    """The input of a step of N crops, on the CPU."""

    large: Tensor
    """Global views (2 * N, C, S, S)."""
    small: Tensor
    """Local views (LOCAL_VIEWS * N, C, s, s)."""
    hidden: Tensor
    """(2 * N, T) bool, patches of the global views that the student does not see."""


class DinoObjective:
    """The objective of the training loop, see `components.pretrain.main`."""

    weight_decay = 0.04
    betas = (0.9, 0.999)

    def __init__(
        self, encoder: Encoder, crops: Crops, seed: int, device: str, *, texture: Tensor | None = None
    ) -> None:
        """texture: some of the images (N, C, S, S), to predict texture as well."""
        self.student = DinoNetwork(encoder, texture=texture is not None).to(device)
        self.network: nn.Module = self.student
        """What a step calls; the training loop makes it data-parallel."""
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.patch = encoder.architecture.patch
        self.texture = None
        if texture is not None:
            self.texture = Texture(self.patch, encoder.config.input.channels)
            self.texture.fit(patches_of(texture, self.patch))
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
        """What a checkpoint holds besides the optimiser."""
        return {"student": self.student, "teacher": self.teacher}

    def batch(self, step: int, batch_size: int) -> DinoBatch:
        """Cut the views of this process's crops of a step; follows from seed and step alone."""
        mine = part(batch_size)
        large, small = (to_device(views, "cpu") for views in self._views(step, batch_size, mine))
        count = (large.shape[2] // self.patch) ** 2
        noise = torch.rand(2, batch_size, count, generator=torch_generator(self.seed, step, 1))[:, mine].flatten(0, 1)
        hidden = noise.argsort(dim=1).argsort(dim=1) < max(1, round(HIDDEN_SHARE * count))
        return DinoBatch(large, small, hidden)

    def _views(self, step: int, count: int, mine: slice) -> tuple[np.ndarray, np.ndarray]:
        """For n = `mine` of `count` crops: global views (2 * n, S, S, C), local views (LOCAL_VIEWS * n, s, s, C)."""
        rng = step_generator(self.seed, step)
        generators = rng.spawn(count)[mine]
        crops = list(zip(self.crops.batch(count, rng, mine), generators, strict=True))
        large, small = (
            max(self.patch, int(self.crops.size * share) // self.patch * self.patch)
            for share in (GLOBAL_SIZE, LOCAL_SIZE)
        )
        return (
            np.stack([view(crop, large, GLOBAL_AREA, own) for _ in range(2) for crop, own in crops]),
            np.stack([view(crop, small, LOCAL_AREA, own) for _ in range(LOCAL_VIEWS) for crop, own in crops]),
        )

    def loss(self, batch: DinoBatch) -> Tensor:
        """Return the loss of a batch: class tokens across views, hidden patches and textures within global views.

        Textures weigh against the other terms as in MAE, each relative to its value for a prediction that knows
        nothing. The sum is not divided by that value: it is larger, so that gradients are clipped at least in the first
        steps, and more is learned.
        """
        large, small, hidden = (x.to(self.device) for x in (batch.large, batch.small, batch.hidden))
        view_targets, patch_targets = self._targets(large, hidden)
        student = self.network(large, small, hidden)
        n = len(large) // 2
        view_loss = dino_loss(view_targets.reshape(2, n, -1), student.view_logits.reshape(2 + LOCAL_VIEWS, n, -1))
        patch_loss = mean(cross_entropy(patch_targets, student.patch_logits))
        distillation, ignorant = view_loss + patch_loss, 2 * math.log(PROTOTYPES)
        if self.texture is None:
            return distillation
        texture = self.texture(patches_of(large, self.patch))
        texture_error = F.mse_loss(student.texture.float(), texture, reduction="none")
        return distillation + TEXTURE_SHARE / (1 - TEXTURE_SHARE) * ignorant * mean(texture_error)

    @torch.no_grad()
    def _targets(self, large: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's probabilities (2 * N, PROTOTYPES) of the views and (hidden patches, PROTOTYPES)."""
        classes, patches = self.teacher.encode(large)
        targets = (
            sinkhorn_targets(self.teacher.head(classes)),
            sinkhorn_targets(self.teacher.patch_head(patches[hidden])),
        )
        spread = F.normalize(patches.float().flatten(0, 1), dim=1).std(dim=0).mean().item()
        self.spread = 0.9 * self.spread + 0.1 * spread
        return targets

    def after_step(self, step: int, steps: int) -> None:
        """Update the teacher; raise UserError where its patch features are all alike."""
        update_average(self.teacher, self.student, momentum(step, steps))
        if step >= 100:
            watch_spread(self.spread, 1e-3, "the spread of the teacher's features", step)


def momentum(step: int, steps: int) -> float:
    """Decay of the teacher's average: rises to 1 by half a cosine (DINO, section 3.1), from DINO's 0.996 in long runs.

    In a short run 0.996 would leave the teacher at its random start; there it averages over a fifth of the steps.
    """
    start = min(0.996, max(0.9, 1 - 5 / steps))
    return 1 - (1 - start) * (math.cos(math.pi * step / steps) + 1) / 2


def view(crop: np.ndarray, size: int, area: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Cut one view (size, size, C) from a crop: a square of that share of its area, rotated, with other intensities.

    Half of the views are rotated by multiples of 90 degrees, half by any angle.
    """
    length = crop.shape[0]
    side = length * rng.uniform(*area) ** 0.5
    y, x = rng.uniform((side - 1) / 2, length - 1 - (side - 1) / 2, size=2)
    degrees = rng.uniform(0, 360) if rng.random() < 0.5 else 90 * int(rng.integers(4))
    square = rotate_square(crop, size, centre=(y, x), side=side, degrees=degrees, flip=bool(rng.integers(2)))
    return augment_intensity(square, rng)
