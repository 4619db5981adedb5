"""The page of `pretrain`."""

import numpy as np
import torch

from components.pretrain.component import Pretrain
from components.pretrain.dino import DinoObjective
from components.pretrain.mae import MaeObjective
from shared.data.crops import Crops
from shared.imaging.pca import pca_rgb
from shared.models.backbones.vit import Encoder
from shared.reporting.page import Page
from shared.training.checkpoint import History
from shared.training.history import thinned
from shared.training.seeds import step_generator
from shared.training.tensors import to_device

PANELS = 4


def training_page(
    stage: Pretrain, objective: MaeObjective | DinoObjective, crops: Crops, history: History, where: str
) -> Page:
    """Loss, MAE's reconstructions, and features."""
    page, name = Page("pretrain"), stage.chosen_objective()
    page.text(
        f"{name.upper()}, ViT {stage.size}, patch {stage.patch}: {stage.steps} steps of {stage.batch_size} "
        f"crops of {stage.crop} px from {len(crops.keys)} images."
    )
    page.plot("loss", {name: thinned(history)}, x="step", y="loss")
    if isinstance(objective, MaeObjective):
        page.heading("Reconstructions")
        x = to_device(crops.batch(PANELS, step_generator(stage.seed, 0, 3)), where)
        for row in objective.pictures(x):
            page.images([(as_picture(image), name) for image, name in row])
    _features(page, stage, objective.encoder, crops, where, more=8)
    return page


def kept_page(stage: Pretrain, encoder: Encoder, crops: Crops, said: str, where: str) -> Page:
    """What is `said` of an encoder that stays as it was given, and its features."""
    page = Page("pretrain")
    page.text(f"{said}: ViT {stage.size}, patch {stage.patch}.")
    _features(page, stage, encoder.to(where), crops, where, more=2)
    return page


def _features(page: Page, stage: Pretrain, encoder: Encoder, crops: Crops, where: str, more: int) -> None:
    """more: so many times the crops that are shown are looked at besides."""
    page.heading("Features")
    page.text(
        "The first three principal components of the patch features, as red, green and blue, "
        "less what they say about the place in the crop."
    )
    x = to_device(crops.batch(PANELS, step_generator(stage.seed, 0, 3)), where)
    others = to_device(crops.batch(more * PANELS, step_generator(stage.seed, 0, 4)), where)
    page.images(feature_pictures(encoder, x, others))


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
        shown.append(
            (np.repeat(np.repeat(picture, encoder.architecture.patch, 0), encoder.architecture.patch, 1), "features")
        )
    return shown


def as_picture(image: np.ndarray) -> np.ndarray:
    """Normalised image (H, W, C) -> (H, W) or, of three channels and more, the first three (H, W, 3), uint8."""
    planes = image[..., :3] if image.shape[2] >= 3 else image[..., 0]
    return np.rint(planes.clip(0, 1) * 255).astype(np.uint8)
