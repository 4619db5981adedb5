"""The detector: RT-DETRv2 (Lv et al. 2024, arXiv:2407.17140; Zhao et al. 2024, arXiv:2304.08069) on our backbones.

Hybrid encoder, decoder, heads, matcher and losses are those of the library transformers (Apache-2.0), with its
parameter names: the corresponding weights of published RT-DETRv2 models load. transformers takes 5 s to import, so that
it is imported when a detector is created.

Size small with 100 queries, CPU time of one thread (AMD EPYC, 2026-11-29), for a training step of 4 images and for the
prediction of one:

| backbone | 256 x 320 px | 480 x 640 px |
|---|---|---|
| ViT nano, patch 16 | 0.8 s, 0.07 s | 3.7 s, 0.29 s |
| ViT nano, patch 8 | 2.4 s, 0.19 s | |
| ResNet 18 | 1.3 s, 0.14 s | 4.8 s, 0.41 s |
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shared.models.backbones.packed_linear import pack_linear_layers
from shared.models.backbones.pyramid import Pyramid
from shared.models.backbones.resnet import ResNet
from shared.models.backbones.vit import Encoder
from shared.models.config import DetectorConfig
from shared.models.decoders.rt_detr import rt_detr

SIDE_MULTIPLE = 32
"""px; height and width of a detector's input, after downsampling, are multiples of it."""


class Target(NamedTuple):
    """The objects of one image."""

    classes: Tensor
    """(n,) int64"""
    boxes: Tensor
    """(n, 4) float32: x and y of the centre, width, height, as shares of the image's width and height."""


class Detector(nn.Module):
    """Images to class logits and boxes, one of each for every query."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config)
        self.transformer = rt_detr(config.architecture, self.backbone.widths)

    @property
    def encoder(self) -> Encoder | None:
        """The vision transformer; None where the backbone is a ResNet."""
        return self.backbone.encoder if isinstance(self.backbone, Pyramid) else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) float32, normalised, H and W multiples of 32 -> logits (N, Q, K), boxes (N, Q, 4) as in Target.

        Queries are not sorted by score.
        """
        outputs = self._run(x, None)
        return outputs.intermediate_logits[:, -1], outputs.intermediate_reference_points[:, -1]

    def loss(self, x: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Images (N, C, H, W) as in `forward`, and their objects -> parts of the loss by name; their sum is trained.

        vfl: class; bbox and giou: box. Suffix aux_i: of the i-th decoder layer but the last, then of the queries as
        the encoder selects them; dn_i: of the denoising queries, which exist in training mode only.
        """
        from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss

        labels = [{"class_labels": target.classes, "boxes": target.boxes} for target in targets]
        outputs = self._run(x, labels)
        logits, boxes = outputs.intermediate_logits, outputs.intermediate_reference_points
        _, parts, _ = RTDetrForObjectDetectionLoss(
            logits[:, -1],
            labels,
            x.device,
            boxes[:, -1],
            self.transformer.config,
            logits,
            boxes,
            enc_topk_logits=outputs.enc_topk_logits,
            enc_topk_bboxes=outputs.enc_topk_bboxes,
            denoising_meta_values=outputs.denoising_meta_values,
        )
        return {name.removeprefix("loss_"): part for name, part in parts.items()}

    def _run(self, x: Tensor, labels: list[dict[str, Tensor]] | None) -> Any:
        maps = [features for features, _ in self.backbone.feature_maps(x)]
        transformer = self.transformer
        projected = [project(features) for project, features in zip(transformer.encoder_input_proj, maps, strict=True)]
        first = projected[0]  # the encoder replaces items of the list
        return transformer(None, inputs_embeds=first, encoder_outputs=transformer.encoder(projected), labels=labels)


class ScoredBoxes(nn.Module):
    """A detector with scores instead of logits, and corners instead of centres."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector, self.downsample = detector, detector.config.input.downsample

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) float32, normalised, H and W multiples of 32 * downsample -> scores (N, Q, K), boxes (N, Q, 4).

        Scores in [0, 1]; boxes: x0, y0, x1, y1 as shares of the image's width and height.
        """
        small = nn.functional.avg_pool2d(image, self.downsample) if self.downsample > 1 else image
        logits, boxes = self.detector(small)
        centre, half = boxes[..., :2], boxes[..., 2:] / 2
        return torch.sigmoid(logits), torch.cat([centre - half, centre + half], dim=-1)


def inference_copy(detector: Detector, device: str) -> Detector:
    """Copy a detector to `device`, in evaluation mode; on a CPU pack the linear layers of its vision transformer."""
    copied = copy.deepcopy(detector).eval()
    if device == "cpu" and isinstance(copied.backbone, Pyramid):
        copied.backbone.encoder = pack_linear_layers(copied.backbone.encoder)
    return copied.to(device)


def _backbone(config: DetectorConfig) -> Pyramid | ResNet:
    encoder, architecture = config.encoder, config.architecture
    if encoder is not None:
        return Pyramid(encoder, architecture)
    return ResNet(architecture.backbone, config.input.channels)  # type: ignore[arg-type]
