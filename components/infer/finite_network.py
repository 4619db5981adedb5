"""Refuse a network's output that is not finite."""

import numpy as np

from shared.models.network import Network
from shared.models.runtimes.runtime import OpenModel
from shared.system.errors import ImageError


def finite_network(model: OpenModel) -> Network:
    """Return the model's network, which then raises ImageError where an output is not finite."""

    def network(images: np.ndarray) -> tuple[np.ndarray, ...]:
        outputs = model.network(images)
        if not all(np.isfinite(output).all() for output in outputs):
            raise ImageError(f"the {model.config.kind}'s output is not finite")
        return outputs

    return network
