"""Training by MAE: batches, loss, watchdog and pictures."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from components.pretrain.mae import Mae, normalise_patches
from components.pretrain.patches import patches_of
from shared.data.augmentation import degrade, jitter_intensity, rotate_square
from shared.data.crops import Crops
from shared.models.backbones.vit import Encoder
from shared.system.collectives import part
from shared.training.seeds import step_generator, torch_generator
from shared.training.tensors import to_device
from shared.training.watchdog import watch_spread

WATCHED_CROPS = 4
"""Crops of a step whose predictions the watchdog measures."""


@dataclass(frozen=True)
class MaeBatch:
    """The input of a step, on the CPU."""

    x: Tensor
    """Visible images (N, C, S, S)."""
    target: Tensor | None
    """Images to predict (N, C, S, S); None: x."""
    noise: Tensor
    """(N, T) in [0, 1), see `Mae.forward`."""


class MaeObjective:
    """The objective of the training loop, see `components.pretrain.main`."""

    weight_decay = 0.05
    betas = (0.9, 0.95)

    def __init__(
        self,
        encoder: Encoder,
        crops: Crops,
        mask_ratio: float,
        seed: int,
        device: str,
        *,
        augment: bool = False,
        texture: Tensor | None = None,
    ) -> None:
        """texture: some of the images (N, C, S, S), to predict texture as well."""
        self.module = Mae(encoder, mask_ratio, texture=texture is not None)
        if self.module.texture is not None and texture is not None:
            self.module.texture.fit(patches_of(texture, encoder.architecture.patch))
        self.network: nn.Module = self.module.to(device)
        """What a step calls; the training loop makes it data-parallel."""
        self.augment = augment
        self.crops, self.seed, self.device = crops, seed, device
        self.spread = 1.0
        """Running standard deviation between different patches: the lesser of the predictions' and the targets'."""

    @property
    def encoder(self) -> Encoder:
        """The trained encoder."""
        return self.module.encoder

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What a checkpoint holds besides the optimiser."""
        return {"model": self.module}

    def batch(self, step: int, batch_size: int) -> MaeBatch:
        """Cut this process's crops of a step and draw their masks; follows from seed and step alone."""
        mine = part(batch_size)
        crops, target = self.crops.batch(batch_size, step_generator(self.seed, step), mine), None
        if self.augment:
            generators = step_generator(self.seed, step, 2).spawn(batch_size)[mine]
            pairs = [input_and_target(crop, rng) for crop, rng in zip(crops, generators, strict=True)]
            crops, targets = (np.stack(images) for images in zip(*pairs, strict=True))
            target = to_device(targets, "cpu")
        x = to_device(crops, "cpu")
        noise = torch.rand(batch_size, self._patches(x), generator=torch_generator(self.seed, step, 1))[mine]
        return MaeBatch(x, target, noise)

    def _patches(self, x: Tensor) -> int:
        """Patches of an image."""
        return (x.shape[2] // self.module.patch) * (x.shape[3] // self.module.patch)

    def loss(self, batch: MaeBatch) -> Tensor:
        """Return the loss of a batch, over all processes."""
        x, noise = batch.x.to(self.device), batch.noise.to(self.device)
        target = None if batch.target is None else batch.target.to(self.device)
        loss, prediction, _ = self.network(x, noise, target)
        watched = (x if target is None else target)[:WATCHED_CROPS]
        patches = prediction[:WATCHED_CROPS].detach(), normalise_patches(patches_of(watched, self.module.patch))
        spread = min(each.float().flatten(0, 1).std(dim=0).mean().item() for each in patches)
        self.spread = 0.9 * self.spread + 0.1 * spread
        return loss

    def after_step(self, step: int, steps: int) -> None:
        """Raise UserError where every patch is predicted alike, or the images are constant."""
        if step >= 50:
            watch_spread(self.spread, 0.01, "the spread of the predictions", step)

    @torch.no_grad()
    def pictures(self, x: Tensor) -> list[list[tuple[np.ndarray, str]]]:
        """For each of the images (N, C, S, S): itself, the visible patches, the prediction; (S, S, C) with captions.

        Values are in the range of the input.
        """
        self.module.eval()
        noise = torch.rand(len(x), self._patches(x), generator=torch_generator(self.seed, 0, 2)).to(self.device)
        columns = [x, *self.module.reconstruct(x, noise)]
        captions = ["input", "visible patches", "hidden patches as predicted, with their true mean and contrast"]
        return [
            [(image.permute(1, 2, 0).cpu().numpy(), caption) for image, caption in zip(row, captions, strict=True)]
            for row in zip(*columns, strict=True)
        ]


def input_and_target(crop: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the visible and the predicted image for a crop (S, S, C) float32.

    Half of the crops are rotated by any angle. The target has other intensities than the crop; the input is the target,
    out of focus or noisy.
    """
    size = len(crop)
    if rng.random() < 0.5:
        centre = (size - 1) / 2
        crop = rotate_square(crop, size, centre=(centre, centre), side=size, degrees=rng.uniform(0, 360))
    target = jitter_intensity(crop, rng)
    return degrade(target, rng), target
