"""Train an encoder on images without labels.

Defaults (nano, patch 8, MAE, 200 steps of 32 crops of 128 px): 60 s and 1.1 GB on two CPU cores, loss 1.25 to 0.95 on
fluorescent nuclei (2026-11, a shared virtual machine).
"""

import numpy as np
import torch

from components.pretrain.component import Pretrain
from components.pretrain.dino import DinoObjective
from components.pretrain.mae import MaeObjective
from components.pretrain.start import channels_of, given_segmentor, shrink_of, starting_encoder, training_keys
from shared.crops import Crops
from shared.devices import device
from shared.distributed import average_gradients
from shared.images import ImageReader
from shared.models.encoder import Encoder, EncoderConfig, save_encoder
from shared.pca import pca_rgb
from shared.progress import Progress
from shared.report import Page
from shared.stage import Result
from shared.training import (
    Checkpoint,
    History,
    adamw,
    cosine,
    seed_everything,
    set_learning_rate,
    step_generator,
    to_device,
    watch_loss,
)

PANELS = 4


def run(stage: Pretrain) -> Result:
    """Train, write the encoder, show the loss and what it sees."""
    reader = ImageReader(stage.images)
    keys = training_keys(reader)
    if given_segmentor(stage, stage.encoder):
        return Result(skipped="the run starts from a segmentor")
    seed_everything(stage.seed)
    encoder, config = starting_encoder(stage, channels_of(reader, keys), shrink_of(stage, reader, keys))
    if stage.objective == "none":
        save_encoder(stage.encoder, encoder.eval(), config, "# Encoder as it started\n\nNot trained.\n")
        return Result(skipped="objective none: the encoder stays as it starts")
    crops = Crops(
        reader,
        keys,
        size=stage.crop,
        channels=config.channels,
        normalisation=config.normalisation,
        scale=stage.scale,
        shrink=config.shrink,
        cache_bytes=stage.cache_mb * 10**6,
    )
    where = device()
    objective: MaeObjective | DinoObjective
    if stage.objective == "mae":
        objective = MaeObjective(encoder, crops, stage.mask_ratio, stage.seed, where)
    else:
        objective = DinoObjective(encoder, crops, stage.seed, where)
    history = train(stage, objective, where)
    trained = objective.encoder.eval()
    save_encoder(stage.encoder, trained, config, _card(stage, config, len(keys), history))
    return Result(metrics=_metrics(history), page=_page(stage, objective, crops, history, where))


def train(stage: Pretrain, objective: MaeObjective | DinoObjective, where: str) -> History:
    """The loop. Returns (step, loss) of every step, those before a restart included."""
    optimiser = adamw(
        objective.module,
        learning_rate=stage.learning_rate,
        weight_decay=objective.weight_decay,
        betas=objective.betas,
    )
    checkpoint = Checkpoint(**objective.parts, optimiser=optimiser)
    first, history = checkpoint.resume()
    progress = Progress("pretrain", stage.steps, "steps", first)
    warmup = max(1, stage.steps // 10)
    for step in range(first, stage.steps):
        set_learning_rate(optimiser, cosine(step, stage.steps, peak=stage.learning_rate, warmup=warmup))
        with torch.autocast("cuda", torch.bfloat16, enabled=where.startswith("cuda")):
            loss = objective.loss(step, stage.batch_size)
        value = loss.item()
        watch_loss(value, step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(objective.module.parameters())
        torch.nn.utils.clip_grad_norm_(objective.module.parameters(), 3.0)
        optimiser.step()
        objective.after_step(step, stage.steps)
        history.append((step, value))
        progress.update(step + 1, f"loss {value:.4f}")
        checkpoint.save_if_due(step + 1, history)
    progress.finish()
    return history


def _metrics(history: History) -> dict[str, float]:
    losses = [loss for _, loss in history]
    tail = max(1, len(losses) // 10)
    return {
        "first_loss": float(np.mean(losses[:tail])),
        "loss": float(np.mean(losses[-tail:])),
        "steps": float(len(losses)),
    }


def _card(stage: Pretrain, config: EncoderConfig, images: int, history: History) -> str:
    metrics = _metrics(history)
    start = stage.weights or stage.weights_from or "random weights"
    low, high = config.normalisation.low, config.normalisation.high
    return f"""# Encoder, ViT {config.size}, patch {config.patch}

Trained without labels by {stage.objective.upper()} on {images} images, from {start}.

- Architecture: width {config.width}, depth {config.depth}, heads {config.heads}, {config.channels} channels
- Input: every channel scaled so that its {low:g} and {high:g} percentiles become 0 and 1
- Training: {stage.steps} steps of {stage.batch_size} crops of {stage.crop} px
- Peak learning rate: {stage.learning_rate:g}
- Loss: {metrics["first_loss"]:.3f} at first, {metrics["loss"]:.3f} at last
- Files: `model.safetensors` (parameter names as in timm's VisionTransformer), `config.json`
"""


def _page(stage: Pretrain, objective: MaeObjective | DinoObjective, crops: Crops, history: History, where: str) -> Page:
    page = Page("pretrain")
    page.text(
        f"{stage.objective.upper()}, ViT {stage.size}, patch {stage.patch}: {stage.steps} steps of {stage.batch_size} "
        f"crops of {stage.crop} px from {len(crops.keys)} images."
    )
    every = max(1, len(history) // 300)
    page.plot("loss", {stage.objective: history[::every]}, x="step", y="loss")
    x = to_device(crops.batch(PANELS, step_generator(stage.seed, 0, 3)), where)
    if isinstance(objective, MaeObjective):
        page.heading("Reconstructions")
        page.images([(as_picture(image), name) for image, name in objective.pictures(x)], width=200)
    page.heading("Features")
    page.text(
        "The first three principal components of the patch features, as red, green and blue, "
        "less what they say about the place in the crop."
    )
    more = to_device(crops.batch(8 * PANELS, step_generator(stage.seed, 0, 4)), where)
    page.images(feature_pictures(objective.encoder, x, more), width=200)
    return page


@torch.no_grad()
def feature_pictures(encoder: Encoder, x: torch.Tensor, more: torch.Tensor) -> list[tuple[np.ndarray, str]]:
    """For images (N, C, S, S): each beside the principal components of its features.

    more: (M, C, S, S), further images to take the mean feature of each place from.
    """
    encoder.eval()
    place = encoder(torch.cat([x, more])).mean(dim=0)
    maps = [(item - place).permute(1, 2, 0).float().cpu().numpy() for item in encoder(x)]
    shown = []
    for image, picture in zip(x.permute(0, 2, 3, 1).cpu().numpy(), pca_rgb(maps), strict=True):
        shown.append((as_picture(image), "input"))
        shown.append((np.repeat(np.repeat(picture, encoder.config.patch, 0), encoder.config.patch, 1), "features"))
    return shown


def as_picture(image: np.ndarray) -> np.ndarray:
    """Normalised image (H, W, C) -> (H, W) or, of three channels and more, the first three (H, W, 3), uint8."""
    planes = image[..., :3] if image.shape[2] >= 3 else image[..., 0]
    return np.rint(planes.clip(0, 1) * 255).astype(np.uint8)
