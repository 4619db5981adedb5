"""Run `pretrain` on small sets of real images."""

from pathlib import Path

import numpy as np
import torch

from components.pretrain.component import Pretrain
from components.pretrain.mae import Mae
from components.pretrain.main import run
from shared.artifacts.image_set import ImageWriter
from shared.artifacts.kinds import ImageSet, Model
from shared.artifacts.manifest import seal
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig
from shared.stage.declaration import Result

TINY = {"size": "nano", "crop": 32, "batch_size": 4, "steps": 3}


def write_images(folder: Path, images: list[np.ndarray], split: str = "train") -> Path:
    """Write and seal an ImageSet of images (H, W) or (H, W, C)."""
    with ImageWriter(folder) as writer:
        for i, image in enumerate(images):
            writer.add(f"image{i}", image if image.ndim == 3 else image[..., None], source=f"{i}.tif", split=split)
    seal(folder, ImageSet)
    return folder


def pretrain(images: Path, out: Path, **parameters) -> Result:
    """Run the stage, with `TINY` but for `parameters`, and seal the encoder."""
    out.mkdir(parents=True)
    result = run(Pretrain(images=images, encoder=out, **{**TINY, **parameters}))
    seal(out, Model)
    return result


def transformers_mae(patch: int, channels: int, side: int):
    """transformers' MAE of a small shape, and ours with the same weights."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        image_size=side,
        patch_size=patch,
        num_channels=channels,
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=512,
        decoder_hidden_size=64,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=256,
        norm_pix_loss=True,
        layer_norm_eps=1e-6,
    )
    theirs = ViTMAEForPreTraining(config).eval()
    embeddings, count = theirs.vit.embeddings, (side // patch) ** 2
    embeddings.patch_embeddings.projection._is_hf_initialized = False
    embeddings.initialize_weights()  # the tables of positions, which its constructor leaves at zero
    theirs.decoder.initialize_weights(count)
    ours = Mae(Encoder(EncoderConfig.preset("nano", patch=patch, channels=channels, crop=side))).eval()
    ours.load_state_dict(renamed(theirs.state_dict()))
    return theirs, ours


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' parameter names -> ours."""
    out = {}
    for name, tensor in state.items():
        for old, new in (
            ("vit.embeddings.cls_token", "encoder.cls_token"),
            ("vit.embeddings.patch_embeddings.projection", "encoder.patch_embed.proj"),
            ("vit.layers", "encoder.blocks"),
            ("vit.layernorm", "encoder.norm"),
            ("decoder.decoder_layers", "decoder_blocks"),
            ("decoder.", ""),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
            ("attention.o_proj", "attn.proj"),
        ):
            name = name.replace(old, new)
        out[name] = tensor
    for name in [name for name in out if "attention.q_proj" in name]:
        parts = [out.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        out[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    return {name: tensor for name, tensor in out.items() if "pos_embed" not in name and "position" not in name}
