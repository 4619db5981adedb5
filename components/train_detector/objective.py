"""Compute the loss of a step: that of the labelled crops, and the weighted one of pseudo-labelled crops."""

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor, nn

from shared.data.box_crops import BoxCrop
from shared.models.detector import Detector, Target
from shared.system.collectives import total
from shared.training.tensors import to_device


class Objective(nn.Module):
    """One module, so that a data-parallel wrapper sees one forward pass in a step."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(
        self, labelled: list[BoxCrop], pseudo: list[BoxCrop], pseudo_weight: float
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and its parts: vfl, bbox and giou summed over the layers, their denoising twins, pseudo."""
        loss, parts = self._loss(labelled)
        if pseudo_weight:
            taught, _ = self._loss(pseudo)
            loss = loss + pseudo_weight * taught
            parts["pseudo"] = float(taught.detach())
        return loss, parts

    def _loss(self, crops: list[BoxCrop]) -> tuple[Tensor, dict[str, float]]:
        """Loss of some crops, normalised by the number of boxes in the crops of all processes, times their number.

        The mean over the processes is that of one process with all crops.
        """
        objects, everywhere = sum(len(boxes) for _, boxes in crops), torch.zeros(2, device=self._device)
        everywhere[0], everywhere[1] = objects, 1
        everywhere = total(everywhere)
        share = float(everywhere[1] * max(1, objects) / everywhere[0].clamp(min=1))
        loss, parts = torch.zeros((), device=self._device), defaultdict[str, float](float)
        for name, part in (self._parts(crops) if crops else {}).items():
            loss = loss + share * part
            kind = name.split("_")[0]
            parts[f"{kind}, denoising" if "_dn_" in name else kind] += float(part.detach())
        if not objects:  # in training by several processes every parameter takes part in each step
            loss = loss + 0.0 * sum(parameter.sum() for parameter in self.parameters() if parameter.requires_grad)
        return loss, dict(parts)

    def _parts(self, crops: list[BoxCrop]) -> dict[str, Tensor]:
        targets = [
            Target(
                torch.from_numpy(boxes.classes).to(self._device),
                torch.from_numpy(boxes.shares(pixels.shape[:2])).to(self._device),
            )
            for pixels, boxes in crops
        ]
        images = to_device(np.stack([pixels for pixels, _ in crops]), str(self._device))
        return self.detector.loss(images, targets)

    @property
    def _device(self) -> torch.device:
        return next(self.detector.parameters()).device
