"""Target: the foreground, and a flow along the gradient of the distance to the instance's edge, for long cells.

The field of Omnipose (Cutler et al. 2022, Nature Methods 19:1438): it leads to the middle line of an instance, so long
cells do not break where the flow to one centre would be weak. Planes and maps as in `shared.targets.flow`.
"""

from typing import Literal

import numpy as np

from shared.instances.flows.field import distance_flow
from shared.targets.flow import GRID, cut, decode, encode_flow, foreground, loss, probability

__all__ = ["GRID", "cut", "decode", "encode", "foreground", "loss", "probability"]


def encode(labels: np.ndarray, confidence: np.ndarray, kind: Literal["instances", "foreground"]) -> np.ndarray:
    """Label image (H, W) and confidence (H, W) uint8 -> planes (H, W, 4) uint8: mask {0, 1}, confidence, flow y and x.

    A foreground mask is split into instances first.
    """
    return encode_flow(labels, confidence, kind, distance_flow)
