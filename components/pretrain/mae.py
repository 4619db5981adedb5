"""Masked autoencoder: He et al. 2022, arXiv:2111.06377.

Three quarters of the patches are hidden, the encoder sees the others alone, and a light decoder predicts the hidden
pixels, each patch normalised by its own mean and standard deviation (section 3 and table 1d); beside them, unless told
otherwise, the texture of every patch, see `texture.py`.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.pretrain.patches import images_of, patches_of
from components.pretrain.texture import DESCRIPTORS, TEXTURE_SHARE, Texture
from shared.data.augmentation import degraded, jitter_intensity, rotated_square
from shared.data.crops import Crops
from shared.models.backbones.blocks import Block, initialise
from shared.models.backbones.vit import Encoder, sincos_positions
from shared.system.collectives import mean, part, total
from shared.training.seeds import step_generator, torch_generator
from shared.training.tensors import to_device
from shared.training.watchdog import watch_spread

DECODER_DEPTH = 2
"""Blocks; representations for dense use lose little by a shallow decoder (table 1a), and it runs on every patch."""

VARIANCE_FLOOR = 1e-6
"""Added to a patch's variance before it is divided by; He et al.'s value."""

WATCHED = 4
"""Crops of a step that the watchdog looks at."""


class Mae(nn.Module):
    """Encoder and decoder. The loss compares predicted with true pixels of the hidden patches, and textures of all."""

    def __init__(
        self,
        encoder: Encoder,
        mask_ratio: float = 0.75,
        decoder_width: int | None = None,
        decoder_depth: int = DECODER_DEPTH,
        decoder_heads: int | None = None,
        *,
        texture: bool = False,
    ) -> None:
        """decoder_width: default half the encoder's; decoder_heads: default one for each 32 features.

        texture: it is predicted as well; False: the objective of He et al.
        """
        super().__init__()
        vit, channels = encoder.architecture, encoder.config.input.channels
        width = decoder_width or vit.width // 2
        self.encoder, self.mask_ratio, self.patch = encoder, mask_ratio, vit.patch
        self.decoder_embed = nn.Linear(vit.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_blocks = nn.ModuleList(Block(width, decoder_heads or width // 32) for _ in range(decoder_depth))
        self.decoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder_pred = nn.Linear(width, vit.patch**2 * channels)
        for module in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            module.apply(initialise)
        self.texture = Texture(vit.patch, channels) if texture else None
        if texture:
            self.decoder_texture = nn.Linear(width, DESCRIPTORS * channels).apply(initialise)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, x: Tensor, noise: Tensor, wanted: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, prediction (N, T, patch² * C) and mask (N, T), 1 = hidden. The loss is that of all processes.

        A loss of 1 is what predicting nothing gives.
        x: (N, C, H, W); noise: (N, T) in [0, 1): the patches with the smallest values are the ones that stay visible;
        wanted: (N, C, H, W), what is to be predicted, where that is not x.
        """
        shuffle = noise.argsort(dim=1, stable=True)
        restore = shuffle.argsort(dim=1)
        kept = shuffle[:, : int(noise.shape[1] * (1 - self.mask_ratio))]
        patches = patches_of(x, self.patch)
        visible = patches.gather(1, kept[..., None].expand(-1, -1, patches.shape[2]))
        grid = self.encoder.grid(x)
        encoded = self.encoder.encode(self.encoder.embed_patches(visible, kept, grid), grid, kept)
        decoded = self._decode(encoded, restore, grid)
        prediction = self.decoder_pred(decoded)
        mask = torch.ones_like(noise).scatter(1, kept, 0.0)
        aim = patches if wanted is None else patches_of(wanted, self.patch)
        error = F.mse_loss(prediction.float(), normalised(aim), reduction="none").mean(dim=2)
        wrong, hidden = total(torch.stack([(error * mask).sum(), mask.sum()]))
        loss = wrong / hidden
        if self.texture is not None:
            missed = F.mse_loss(self.decoder_texture(decoded).float(), self.texture(aim), reduction="none")
            loss = (1 - TEXTURE_SHARE) * loss + TEXTURE_SHARE * mean(missed)
        return loss, prediction, mask

    def _decode(self, encoded: Tensor, restore: Tensor, grid: tuple[int, int]) -> Tensor:
        """Encoded class token and visible tokens (N, 1 + V, width) -> all patches' (N, T, decoder width), normed.

        restore: (N, T), for each place of the grid (rows, columns) the number of its token, hidden ones last.
        """
        y = self.decoder_embed(encoded)
        hidden = self.mask_token.to(y.dtype).expand(len(y), restore.shape[1] + 1 - y.shape[1], -1)
        patches = torch.cat([y[:, 1:], hidden], dim=1).gather(1, restore[..., None].expand(-1, -1, y.shape[2]))
        y = torch.cat([y[:, :1], patches + sincos_positions(*grid, y.shape[2]).to(y)], dim=1)
        for block in self.decoder_blocks:
            y = block(y)
        return self.decoder_norm(y)[:, 1:]


def pair(crop: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What is seen of a crop (S, S, C) float32, and what is to be predicted: it is turned, half of the crops by any
    angle, and of other intensities; what is seen is out of focus or noisy besides.
    """
    size = len(crop)
    if rng.random() < 0.5:
        centre = (size - 1) / 2
        crop = rotated_square(crop, size, centre=(centre, centre), side=size, degrees=rng.uniform(0, 360))
    wanted = jitter_intensity(crop, rng)
    return degraded(wanted, rng), wanted


def normalised(patches: Tensor) -> Tensor:
    """What is to be predicted: every patch of (N, T, D) less its mean, by its standard deviation; no gradient.

    The deviation's divisor is D - 1 as in He et al.'s code, layer norm's is D: hence the factor.
    """
    size = patches.shape[2]
    factor = (size - 1) / size
    scale = torch.full((size,), factor**0.5, device=patches.device)
    return F.layer_norm(patches.detach().float(), (size,), scale, eps=VARIANCE_FLOOR * factor)


class MaeObjective:
    """What the training loop needs: the loss of a step, and the watchdog's look at the result."""

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
        """texture: some of the images (N, C, S, S), where texture is predicted as well."""
        self.module = Mae(encoder, mask_ratio, texture=texture is not None)
        if self.module.texture is not None and texture is not None:
            self.module.texture.fit(patches_of(texture, encoder.architecture.patch))
        self.module.to(device)
        self.augment = augment
        self.crops, self.seed, self.device = crops, seed, device
        self.spread = 1.0
        """Running standard deviation between the predictions, or the targets, of different patches; the lesser."""

    @property
    def encoder(self) -> Encoder:
        """The encoder in training."""
        return self.module.encoder

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What a checkpoint holds beside the optimiser."""
        return {"model": self.module}

    def loss(self, step: int, batch_size: int) -> Tensor:
        """Loss of the crops and masks of this step."""
        mine = part(batch_size)
        crops = self.crops.batch(batch_size, step_generator(self.seed, step), mine)
        wanted, x = None, to_device(crops, self.device)
        if self.augment:
            generators = step_generator(self.seed, step, 2).spawn(batch_size)[mine]
            pairs = [pair(crop, own) for crop, own in zip(crops, generators, strict=True)]
            x, wanted = (to_device(np.stack(one), self.device) for one in zip(*pairs, strict=True))
        count = (x.shape[2] // self.module.patch) * (x.shape[3] // self.module.patch)
        noise = torch.rand(batch_size, count, generator=torch_generator(self.seed, step, 1))[mine].to(self.device)
        loss, prediction, _ = self.module(x, noise, wanted)
        target = normalised(patches_of((x if wanted is None else wanted)[:WATCHED], self.module.patch))
        parts = (prediction[:WATCHED].detach(), target)
        spread = min(part.float().flatten(0, 1).std(dim=0).mean().item() for part in parts)
        self.spread = 0.9 * self.spread + 0.1 * spread
        return loss

    def after_step(self, step: int, steps: int) -> None:
        """Raise UserError where every patch is predicted alike, or there is nothing to predict: constant images."""
        if step >= 50:
            watch_spread(self.spread, 0.01, "the spread of the predictions", step)

    @torch.no_grad()
    def pictures(self, x: Tensor) -> list[list[tuple[np.ndarray, str]]]:
        """For each of the images (N, C, S, S): itself, what the encoder saw, what was predicted; (S, S, C) each.

        Values as the input's.
        """
        self.module.eval()
        count = (x.shape[2] // self.module.patch) * (x.shape[3] // self.module.patch)
        noise = torch.rand(len(x), count, generator=torch_generator(self.seed, 0, 2)).to(self.device)
        _, prediction, mask = self.module(x, noise)
        true = patches_of(x, self.module.patch)
        mean, deviation = true.mean(dim=2, keepdim=True), (true.var(dim=2, keepdim=True) + VARIANCE_FLOOR).sqrt()
        hidden = mask[..., None]
        seen = torch.where(hidden > 0, torch.full_like(true, 0.5), true)
        filled = torch.where(hidden > 0, prediction.float() * deviation + mean, true)
        columns = [x] + [images_of(part, self.module.patch, *x.shape[2:]) for part in (seen, filled)]
        names = ["input", "what the encoder saw", "hidden patches as predicted, but for their mean and contrast"]
        return [
            [(part.permute(1, 2, 0).cpu().numpy(), name) for part, name in zip(row, names, strict=True)]
            for row in zip(*columns, strict=True)
        ]
