"""The hybrid encoder and decoder of RT-DETRv2 (Lv et al. 2024, arXiv:2407.17140), from the library transformers."""

import math
from typing import Any

from torch import nn

from shared.models.backbones.norms import group_norm
from shared.models.config import DetectorArchitecture
from shared.models.decoders.deformable_attention import DeformableAttention

PRIOR_PROBABILITY = 0.01
"""Score of every class in a new detector (Lin et al. 2017, arXiv:1708.02002, section 3.3)."""


def rt_detr(architecture: DetectorArchitecture, widths: tuple[int, ...]) -> Any:
    """Create transformers' `RTDetrV2Model` without its backbone, with new weights.

    widths: channels of the backbone's maps. The heads are in the model's decoder alone; `RTDetrV2ForObjectDetection`
    holds the same tensors under a second name.
    """
    from transformers.models.rt_detr_v2 import RTDetrV2Config, RTDetrV2Model
    from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import RTDetrV2MLPPredictionHead

    width = architecture.width
    model: Any = RTDetrV2Model(RTDetrV2Config(**_settings(architecture)))
    model.backbone = nn.Identity()
    model.encoder_input_proj = nn.ModuleList(
        nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)) for channels in widths
    )
    layers, classes = range(architecture.decoder_layers), len(architecture.classes)
    model.decoder.class_embed = nn.ModuleList(nn.Linear(width, classes) for _ in layers)
    model.decoder.bbox_embed = nn.ModuleList(RTDetrV2MLPPredictionHead(width, width, 4, num_layers=3) for _ in layers)
    _initialise(model)
    for layer in model.decoder.layers:
        layer.encoder_attn = DeformableAttention(layer.encoder_attn)
    if architecture.norm == "group":
        _replace_batch_norm(model)
    return model


def _settings(architecture: DetectorArchitecture) -> dict[str, Any]:
    """Fields of the library's config that differ from its defaults."""
    from transformers.models.rt_detr.configuration_rt_detr_resnet import RTDetrResNetConfig

    tiny: dict[str, Any] = {"hidden_sizes": [8] * 4, "depths": [1] * 4, "layer_type": "basic", "out_indices": [2, 3, 4]}
    return {
        "backbone_config": RTDetrResNetConfig(embedding_size=8, **tiny),  # is replaced
        "num_labels": len(architecture.classes),
        "d_model": architecture.width,
        "encoder_hidden_dim": architecture.width,
        "hidden_expansion": architecture.expansion,
        "decoder_in_channels": [architecture.width] * 3,
        "encoder_attention_heads": architecture.heads,
        "decoder_attention_heads": architecture.heads,
        "encoder_ffn_dim": architecture.feed_forward,
        "decoder_ffn_dim": architecture.feed_forward,
        "encoder_layers": architecture.encoder_layers,
        "decoder_layers": architecture.decoder_layers,
        "num_queries": architecture.queries,
        "num_denoising": architecture.denoising,
    }


def _initialise(model: Any) -> None:
    """Initialise as RT-DETR's own code does.

    The library gives most weights a standard deviation of 0.01, the scales of batch norms included: made for loading
    weights, that does not train from scratch.
    """
    from transformers.models.rt_detr_v2.modeling_rt_detr_v2 import RTDetrV2MultiscaleDeformableAttention

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for head in (model.enc_score_head, *model.decoder.class_embed):
        nn.init.constant_(head.bias, -math.log(1 / PRIOR_PROBABILITY - 1))
    for head in (model.enc_bbox_head, *model.decoder.bbox_embed):
        nn.init.zeros_(head.layers[-1].weight)
    for module in model.modules():
        if isinstance(module, RTDetrV2MultiscaleDeformableAttention):
            model._init_weights(module)  # sampling points around the object


def _replace_batch_norm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, group_norm(child.num_features))
        else:
            _replace_batch_norm(child)
