"""A training step of MAE against transformers', against encoding every token, and against the processor's peak.

`python tests/benchmarks/bench_mae.py [--threads 2] [--repeats 7]`: ViT-S/16, 224 px, batches of 16; two minutes, 3 GB.
To be reached: 0.95x the images/s of transformers at the same sizes, 2.3x those of encoding every token, half of the
FLOP/s of one large matrix product in the same run. Theirs predicts pixels alone, so ours is compared at that; the step
that `pretrain` takes by default, which predicts texture as well, stands beside it.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import ViTMAEConfig, ViTMAEForPreTraining

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from timing import interleaved  # noqa: E402

from components.pretrain.mae import Mae, normalise_patches  # noqa: E402
from components.pretrain.patches import patches_of  # noqa: E402
from shared.models.backbones.vit import Encoder  # noqa: E402
from shared.models.config import EncoderConfig  # noqa: E402
from shared.system.devices import threads  # noqa: E402
from shared.training.optimiser import adamw  # noqa: E402
from shared.training.seeds import seed_everything  # noqa: E402

SIDE, PATCH, BATCH, CHANNELS = 224, 16, 16, 3
PEAK_SIDE = 3072


class EveryToken(Mae):
    """The same autoencoder, but the encoder sees every patch; what is decoded and compared stays the same."""

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As Mae's, without its shortcut."""
        hidden = int(noise.shape[1] * self.mask_ratio)
        mask = torch.ones_like(noise).scatter(1, noise.argsort(dim=1)[:, : noise.shape[1] - hidden], 0.0)
        restore = torch.arange(noise.shape[1]).expand(len(x), -1)
        grid = (x.shape[2] // self.patch, x.shape[3] // self.patch)
        prediction = self.decoder_pred(self._decode(self.encoder.tokens(x), restore, grid))
        error = F.mse_loss(prediction, normalise_patches(patches_of(x, self.patch)), reduction="none").mean(dim=2)
        return (error * mask).sum() / mask.sum(), prediction, mask


def transformers_like(ours: Mae, config: EncoderConfig) -> ViTMAEForPreTraining:
    """Their network of the same sizes, in training mode."""
    width, block, vit = ours.mask_token.shape[2], ours.decoder_blocks[0], config.architecture
    theirs = ViTMAEForPreTraining(
        ViTMAEConfig(
            image_size=SIDE,
            patch_size=PATCH,
            num_channels=CHANNELS,
            hidden_size=vit.width,
            num_hidden_layers=vit.depth,
            num_attention_heads=vit.heads,
            intermediate_size=4 * vit.width,
            decoder_hidden_size=width,
            decoder_num_hidden_layers=len(ours.decoder_blocks),
            decoder_num_attention_heads=block.attn.heads,
            decoder_intermediate_size=4 * width,
            mask_ratio=ours.mask_ratio,
            norm_pix_loss=True,
            attn_implementation="sdpa",
        )
    )
    return theirs.train()


def training_step(
    module: torch.nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor], x: Tensor, noise: Tensor
) -> Callable[[], None]:
    """Forward, backward and the optimiser's step, as `pretrain` takes them."""
    optimiser = adamw(module, learning_rate=1e-4, weight_decay=0.05, betas=(0.9, 0.95))

    def step() -> None:
        loss = loss_of(x, noise)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def main() -> None:
    """Print images/s of each, and the three ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=threads())
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    seed_everything(0)
    config = EncoderConfig.preset("small", patch=PATCH, channels=CHANNELS, crop=SIDE)
    ours, every = Mae(Encoder(config)).train(), EveryToken(Encoder(config)).train()
    textured, theirs = Mae(Encoder(config), texture=True).train(), transformers_like(ours, config)
    x, noise = torch.rand(BATCH, CHANNELS, SIDE, SIDE), torch.rand(BATCH, (SIDE // PATCH) ** 2)
    a, b = torch.randn(2, PEAK_SIDE, PEAK_SIDE)
    steps = {
        "ours": training_step(ours, lambda x, noise: ours(x, noise)[0], x, noise),
        "ours with texture": training_step(textured, lambda x, noise: textured(x, noise)[0], x, noise),
        "transformers": training_step(theirs, lambda x, noise: theirs(x, noise=noise).loss, x, noise),
        "every token": training_step(every, lambda x, noise: every(x, noise)[0], x, noise),
        "matrix product": lambda: a @ b,
    }
    with FlopCounterMode(display=False) as counter:
        steps["ours"]()
    flops = counter.get_total_flops()
    seconds = interleaved(steps, args.repeats)
    peak = 2 * PEAK_SIDE**3 / seconds.pop("matrix product")
    print(f"MAE step, ViT-S/{PATCH}, {SIDE} px, batch {BATCH}; {args.threads} threads, median of {args.repeats}")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    for name, value in seconds.items():
        print(f"{name:18} {BATCH / value:7.2f} images/s   {value / seconds['ours']:5.2f}x our time")
    rate = flops / seconds["ours"]
    print(f"{flops / 1e9:.0f} GFLOP a step at {rate / 1e9:.0f} GFLOP/s; peak {peak / 1e9:.0f}: {rate / peak:.2f} of it")


if __name__ == "__main__":
    main()
