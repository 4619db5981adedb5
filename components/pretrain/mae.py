"""Masked autoencoder: He et al. 2022, arXiv:2111.06377.

Three quarters of the patches are hidden. The encoder sees the others alone, and a light decoder predicts the hidden
pixels, each patch normalised by its own mean and standard deviation (section 3 and table 1d). By default it predicts
the texture of every patch as well, see `texture.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.pretrain.patches import images_of, patches_of
from components.pretrain.texture import DESCRIPTORS, TEXTURE_SHARE, Texture
from shared.models.backbones.blocks import Block, initialise
from shared.models.backbones.vit import Encoder, sincos_positions
from shared.system.collectives import mean, total

DECODER_DEPTH = 2
"""Blocks. A shallow decoder costs dense features little (table 1a), and it runs on every patch."""
VARIANCE_FLOOR = 1e-6
"""Added to a patch's variance before the division; He et al.'s value."""


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

        texture: predict it as well; without it the objective is He et al.'s.
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

    def forward(self, x: Tensor, noise: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss over all processes, the prediction (N, T, patch² * C) and the mask (N, T), 1 = hidden.

        The loss is 1 for a prediction that knows nothing. x: (N, C, H, W), the visible images; noise: (N, T) in [0, 1),
        the patches with the smallest values stay visible; target: (N, C, H, W), the images to predict; None: x.
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
        target_patches = patches if target is None else patches_of(target, self.patch)
        return self._loss(decoded, prediction, mask, target_patches), prediction, mask

    def _decode(self, encoded: Tensor, restore: Tensor, grid: tuple[int, int]) -> Tensor:
        """Encoded class token and visible tokens (N, 1 + V, width) -> all patches' (N, T, decoder width), normed.

        restore: (N, T), the number of the token of each patch of the grid (rows, columns), hidden ones last.
        """
        y = self.decoder_embed(encoded)
        hidden = self.mask_token.to(y.dtype).expand(len(y), restore.shape[1] + 1 - y.shape[1], -1)
        patches = torch.cat([y[:, 1:], hidden], dim=1).gather(1, restore[..., None].expand(-1, -1, y.shape[2]))
        y = torch.cat([y[:, :1], patches + sincos_positions(*grid, y.shape[2]).to(y)], dim=1)
        for block in self.decoder_blocks:
            y = block(y)
        return self.decoder_norm(y)[:, 1:]

    def _loss(self, decoded: Tensor, prediction: Tensor, mask: Tensor, target_patches: Tensor) -> Tensor:
        error = F.mse_loss(prediction.float(), normalise_patches(target_patches), reduction="none").mean(dim=2)
        hidden_error, hidden = total(torch.stack([(error * mask).sum(), mask.sum()]))
        loss = hidden_error / hidden
        if self.texture is None:
            return loss
        predicted = self.decoder_texture(decoded).float()
        texture_error = F.mse_loss(predicted, self.texture(target_patches), reduction="none")
        return (1 - TEXTURE_SHARE) * loss + TEXTURE_SHARE * mean(texture_error)

    def reconstruct(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) and noise (N, T) -> the images as the encoder sees them, and with predicted patches.

        Hidden patches are grey in the first; in the second their mean and deviation are the true ones.
        """
        _, prediction, mask = self(x, noise)
        true, hidden = patches_of(x, self.patch), mask[..., None] > 0
        deviation = (true.var(dim=2, keepdim=True) + VARIANCE_FLOOR).sqrt()
        predicted = prediction.float() * deviation + true.mean(dim=2, keepdim=True)
        seen = torch.where(hidden, torch.full_like(true, 0.5), true)
        filled = torch.where(hidden, predicted, true)
        return images_of(seen, self.patch, *x.shape[2:]), images_of(filled, self.patch, *x.shape[2:])


def normalise_patches(patches: Tensor) -> Tensor:
    """Subtract from every patch of (N, T, D) its mean and divide by its standard deviation; no gradient.

    The deviation's divisor is D - 1 as in He et al.'s code, layer norm's is D: hence the factor.
    """
    size = patches.shape[2]
    factor = (size - 1) / size
    scale = torch.full((size,), factor**0.5, device=patches.device)
    return F.layer_norm(patches.detach().float(), (size,), scale, eps=VARIANCE_FLOOR * factor)
