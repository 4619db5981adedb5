"""Build the encoder that training starts from: new, from a Model artifact, or from a published checkpoint."""

from pathlib import Path

import torch
from torch import Tensor

from components.pretrain.component import Pretrain
from components.pretrain.foreign_weights import adapt_checkpoint
from components.pretrain.patch_embedding import fit_channels
from shared.artifacts.manifest import copy_payload
from shared.data.crops import Crops
from shared.models.backbones.checkpoint_file import local_file, read_tensors
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig, ModelInput, SegmentorConfig, VitArchitecture
from shared.models.files import load_config
from shared.models.load import load_model
from shared.models.model_source import model_at
from shared.system.errors import UserError
from shared.training.seeds import step_generator
from shared.training.tensors import to_device

SAMPLE_CROPS = 64
"""Crops that the patch embedding and the texture are fitted to."""
POSITIONS_RMS = 0.5**0.5
"""Root mean square of sin-cos positions."""
MAX_GAIN = 100.0
"""Largest gain of the patch embedding, for images of almost no contrast."""


def initial_encoder(stage: Pretrain, model_input: ModelInput) -> Encoder:
    """Build the encoder that the stage asks for. Raises UserError where the weights it names do not match."""
    config = EncoderConfig(architecture=VitArchitecture.preset(stage.size, stage.patch), input=model_input)
    if stage.weights and stage.weights_from:
        raise UserError("--weights, --weights_from: they exclude each other; give one of them")
    if stage.weights:
        with local_file(stage.weights) as path:
            return adapt_checkpoint(read_tensors(path), config, path, stage.weights_input)
    if stage.weights_from:
        with model_at(stage.weights_from, "--weights_from") as folder:
            return _from_artifact(folder, config)
    return Encoder(config)


def sample_crops(crops: Crops, seed: int) -> Tensor:
    """Cut crops (N, C, S, S) that represent the set, before training. Every process gets the same."""
    return to_device(crops.batch(SAMPLE_CROPS, step_generator(seed, 0, 5)), "cpu")


@torch.no_grad()
def fit_embedding(encoder: Encoder, x: Tensor) -> None:
    """Scale a new encoder's patch embedding: over images x (N, C, H, W), contents are as large as positions.

    Images in [0, 1] deviate by about a tenth. Unscaled, a token's position would be ten times as large as its contents,
    and all tokens would look alike. Data-dependent initialisation as in Mishkin and Matas 2016, arXiv:1511.06422.
    """
    proj = encoder.patch_embed.proj
    assert proj.bias is not None
    contents = proj(x)
    centre = contents.mean(dim=(0, 2, 3))
    rms = (contents - centre[:, None, None]).square().mean().sqrt().item()
    gain = min(POSITIONS_RMS / max(rms, 1e-6), MAX_GAIN)
    proj.bias.sub_(centre).mul_(gain)
    proj.weight.mul_(gain)


def copy_given_segmentor(stage: Pretrain, target: Path) -> bool:
    """Copy the model of `weights_from` to `target` if it is a segmentor, which needs no pretraining; return whether."""
    if not stage.weights_from or stage.weights:
        return False
    with model_at(stage.weights_from, "--weights_from") as folder:
        if isinstance(load_config(folder, EncoderConfig, SegmentorConfig), EncoderConfig):
            return False
        copy_payload(folder, target)
    return True


def _from_artifact(folder: Path, config: EncoderConfig) -> Encoder:
    """The artifact's encoder with its channels adapted; size and patch must be those of the config."""
    given = load_model(folder, Encoder)
    for field in ("size", "patch"):
        found = getattr(given.config.architecture, field)
        if found != getattr(config.architecture, field):
            raise UserError(f"--weights_from: {folder} has {field} {found}; give --{field} {found}")
    # The normalisation stays the given encoder's, all else follows from the images.
    model_input = config.input.model_copy(update={"normalisation": given.config.input.normalisation})
    encoder, state = Encoder(given.config.model_copy(update={"input": model_input})), given.state_dict()
    state["patch_embed.proj.weight"] = fit_channels(state["patch_embed.proj.weight"], model_input.channels)
    encoder.load_state_dict(state)
    return encoder
