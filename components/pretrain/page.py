"""The page of `pretrain`."""

import numpy as np
import torch

from components.pretrain.component import Pretrain
from components.pretrain.loop import Objective
from components.pretrain.mae_objective import MaeObjective
from shared.data.crops import Crops
from shared.imaging.pca import pca_rgb
from shared.models.backbones.vit import Encoder
from shared.reporting.page import Page
from shared.training.history import History, plot_points
from shared.training.seeds import step_generator
from shared.training.tensors import to_device

PANELS = 4


def training_page(stage: Pretrain, objective: Objective, crops: Crops, history: History, where: str) -> Page:
    """Page of the loss, MAE's reconstructions, and features."""
    page, name = Page("pretrain"), stage.chosen_objective()
    page.text(
        f"{name.upper()}, ViT {stage.size}, patch {stage.patch}: {stage.steps} steps of {stage.batch_size} "
        f"crops of {crops.size} px from {len(crops.keys)} images."
    )
    page.plot("loss", {name: plot_points(history)}, x="step", y="loss")
    if isinstance(objective, MaeObjective):
        page.heading("Reconstructions")
        x = to_device(crops.batch(PANELS, step_generator(stage.seed, 0, 3)), where)
        for row in objective.pictures(x):
            page.images([(as_picture(image), caption) for image, caption in row])
    _add_features(page, stage, objective.encoder, crops, where, more=8)
    return page


def encoder_page(stage: Pretrain, encoder: Encoder, crops: Crops, reason: str, where: str) -> Page:
    """Page of an encoder that was not trained, for this reason, and its features."""
    page = Page("pretrain")
    page.text(f"{reason}: ViT {stage.size}, patch {stage.patch}.")
    _add_features(page, stage, encoder.to(where), crops, where, more=2)
    return page


def _add_features(page: Page, stage: Pretrain, encoder: Encoder, crops: Crops, where: str, more: int) -> None:
    """more: how many times as many crops as are shown the mean feature of each position is taken from besides."""
    page.heading("Features")
    page.text(
        "The first three principal components of the patch features, as red, green and blue, "
        "after subtraction of the mean feature of each position in the crop."
    )
    x = to_device(crops.batch(PANELS, step_generator(stage.seed, 0, 3)), where)
    others = to_device(crops.batch(more * PANELS, step_generator(stage.seed, 0, 4)), where)
    page.images(feature_pictures(encoder, x, others))


@torch.no_grad()
def feature_pictures(encoder: Encoder, x: torch.Tensor, more: torch.Tensor) -> list[tuple[np.ndarray, str]]:
    """For each of the images (N, C, S, S): itself, and the principal components of its features.

    more: (M, C, S, S), further images for the mean feature of each position.
    """
    encoder.eval()
    position_mean = encoder(torch.cat([x, more])).mean(dim=0)
    maps = [(item - position_mean).permute(1, 2, 0).float().cpu().numpy() for item in encoder(x)]
    patch, pictures = encoder.architecture.patch, []
    for image, colours in zip(x.permute(0, 2, 3, 1).cpu().numpy(), pca_rgb(maps), strict=True):
        pictures.append((as_picture(image), "input"))
        pictures.append((colours.repeat(patch, axis=0).repeat(patch, axis=1), "features"))
    return pictures


def as_picture(image: np.ndarray) -> np.ndarray:
    """Normalised image (H, W, C) -> uint8 picture (H, W), or (H, W, 3) of the first three of several channels."""
    shown = image[..., :3] if image.shape[2] >= 3 else image[..., 0]
    return np.rint(shown.clip(0, 1) * 255).astype(np.uint8)
