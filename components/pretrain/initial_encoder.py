"""The encoder that training begins with: new, from an encoder artifact, or from a foreign checkpoint."""

import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.pretrain.component import Pretrain
from components.pretrain.foreign_weights import adapted, read_foreign
from components.pretrain.patch_embedding import fit_channels
from shared.artifacts.image_set import ImageReader, median_um_per_px
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.kinds import Model
from shared.artifacts.manifest import copy_payload, verify
from shared.data.crops import Crops
from shared.instances.label_image import typical_area
from shared.instances.watershed import split_touching
from shared.models.backbones.vit import Encoder
from shared.models.config import Downsample, EncoderConfig, ModelInput, SegmentorConfig, VitArchitecture
from shared.models.files import load_config
from shared.models.load import load_model
from shared.proposals.proposal_selection import ProposalSelection
from shared.system.errors import ArtifactError, UserError
from shared.system.log import log
from shared.training.seeds import step_generator
from shared.training.tensors import to_device

MOST_CHANNELS = 16
MEASURED_IMAGES = 24
"""Images, evenly spread, whose objects are measured."""
LARGE = 56
"""px; typical objects of this diameter and more are made smaller. Measured on the first proposals: phase contrast of
Usiigaci 75, nuclei of DSB 2018 20 to 32."""
MEASURED_CROPS = 64
"""Crops that the patch embedding is fitted to."""
POSITIONS_SIZE = 0.5**0.5
"""Root mean square of sine and cosine positions."""
MOST_GAIN = 100.0
"""Of the patch embedding; images of next to no contrast stay faint."""
FACTORS: tuple[Downsample, ...] = (1, 2, 4)


def training_keys(reader: ImageReader) -> list[str]:
    """Keys of the images to learn from. Raises UserError where there are none."""
    keys = reader.keys("train")
    if not keys:
        raise UserError(f"--images: {reader.folder}: none of its {len(reader)} images is of the split train")
    return keys


def channels_of(reader: ImageReader, keys: list[str]) -> int:
    """Channels of the model: 1 where all images are grey, else the most that any has, up to 16."""
    most = max(reader.entries[key].channels for key in keys)
    if most > MOST_CHANNELS:
        log.warning("there are images with %d channels; the first %d of them are used", most, MOST_CHANNELS)
    return min(most, MOST_CHANNELS)


def downsample_of(stage: Pretrain, reader: ImageReader, keys: list[str]) -> Downsample:
    """The factor that the stage asks for, or the one that leaves the set's objects below `LARGE`.

    A transformer of small patches takes in some 16 of them on a side: of a larger cell it sees only a part.
    """
    if stage.downsample != "auto":
        return FACTORS[["1", "2", "4"].index(stage.downsample)]
    chosen = evenly_spaced(keys, MEASURED_IMAGES)
    choice = ProposalSelection.among(reader.read(key) for key in chosen)
    sizes = []
    for key in chosen:
        areas = np.bincount(split_touching((choice.probability(reader.read(key)) >= 0.5).astype(np.uint8)).ravel())
        if len(areas) > 1:
            sizes.append(2 * math.sqrt(typical_area(areas[1:]) / math.pi))
    diameter = float(np.median(sizes)) if sizes else 0.0
    downsample = next((factor for factor in FACTORS if diameter / factor < LARGE), FACTORS[-1])
    log.info("objects of about %.0f px: the network sees the images at 1 / %d of their size", diameter, downsample)
    return downsample


def model_input(stage: Pretrain, reader: ImageReader, keys: list[str]) -> ModelInput:
    """What a network for these images takes in."""
    return ModelInput(
        channels=channels_of(reader, keys),
        downsample=downsample_of(stage, reader, keys),
        um_per_px=median_um_per_px(reader, keys),
        crop_px=stage.crop,
    )


def starting_encoder(stage: Pretrain, given: ModelInput) -> Encoder:
    """The encoder that the stage asks for. Raises UserError where the weights it names do not fit."""
    config = EncoderConfig(architecture=VitArchitecture.preset(stage.size, stage.patch), input=given)
    if stage.weights and stage.weights_from:
        raise UserError("--weights, --weights_from: both are given; start from one of them")
    if not (stage.weights or stage.weights_from):
        return Encoder(config)
    with tempfile.TemporaryDirectory(prefix="cytoloom-") as temporary:
        if stage.weights:
            path = _local_file(stage.weights, Path(temporary))
            return adapted(read_foreign(path), config, path, stage.weights_input)
        return _from_artifact(_local_folder(stage.weights_from, Path(temporary)), config)


def some_crops(crops: Crops, seed: int) -> Tensor:
    """Crops (N, C, S, S) to learn from what the set's look like, before training. Every process gets the same."""
    return to_device(crops.batch(MEASURED_CROPS, step_generator(seed, 0, 5)), "cpu")


@torch.no_grad()
def fit_embedding(encoder: Encoder, x: Tensor) -> None:
    """Scale a new encoder's patch embedding to images x (N, C, H, W): over them, contents are as large as positions.

    Images in [0, 1] deviate by a tenth or so. As it begins, a token would say where it is ten times as loud as what is
    there, and all look alike. A start from the data as in Mishkin and Matas 2016, arXiv:1511.06422.
    """
    proj = encoder.patch_embed.proj
    assert proj.bias is not None
    contents = proj(x)
    centre = contents.mean(dim=(0, 2, 3))
    size = (contents - centre[:, None, None]).square().mean().sqrt().item()
    gain = min(POSITIONS_SIZE / max(size, 1e-6), MOST_GAIN)
    proj.bias.sub_(centre).mul_(gain)
    proj.weight.mul_(gain)


def given_segmentor(stage: Pretrain, target: Path) -> bool:
    """Copy the model of `weights_from` to `target` where it is a segmentor: it needs no pretraining."""
    if not stage.weights_from or stage.weights:
        return False
    with tempfile.TemporaryDirectory(prefix="cytoloom-") as temporary:
        folder = _local_folder(stage.weights_from, Path(temporary))
        if isinstance(load_config(folder, EncoderConfig, SegmentorConfig), EncoderConfig):
            return False
        copy_payload(folder, target)
    return True


def _local_file(location: str, temporary: Path) -> Path:
    if "://" not in location:
        return Path(location)
    from shared import store

    path = temporary / location.rsplit("/", 1)[1]
    path.write_bytes(store.get(location))
    return path


def _local_folder(location: str, temporary: Path) -> Path:
    folder = Path(location)
    if "://" in location:
        from shared import store

        folder = temporary / "encoder"
        store.fetch(location, folder)
    try:
        verify(folder, Model)
    except ArtifactError as error:
        raise ArtifactError(f"--weights_from: {error}") from error
    return folder


def _from_artifact(folder: Path, config: EncoderConfig) -> Encoder:
    """The artifact's encoder; its size and patch must be those asked for, its channels are fitted."""
    given = load_model(folder, Encoder)
    for field in ("size", "patch"):
        found = getattr(given.config.architecture, field)
        if found != getattr(config.architecture, field):
            raise UserError(f"--weights_from: {folder} has {field} {found}; give --{field} {found}")
    own = given.config.input.model_copy(
        update=config.input.model_dump(include={"channels", "crop_px", "downsample", "um_per_px"})
    )
    encoder, state = Encoder(given.config.model_copy(update={"input": own})), given.state_dict()
    state["patch_embed.proj.weight"] = fit_channels(state["patch_embed.proj.weight"], own.channels)
    encoder.load_state_dict(state)
    return encoder
