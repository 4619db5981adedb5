"""Measure the typical object of a set of images on its proposals."""

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.assessment.noise import is_noise
from shared.imaging.grey import grey
from shared.instances.distance import typical_diameter
from shared.proposals.proposal_selection import ProposalSelection

MEASURED_IMAGES = 24
"""Images, evenly spaced, whose objects are measured."""

_MARGIN_WINDOWS = 3.0
"""Standard deviations of the texture's window by which objects are found too large."""


def object_diameter(reader: ImageReader, keys: list[str], *, without_margin: bool = False) -> float:
    """Median over some images of the typical diameter of their proposals' objects, px; 0 where none has an object.

    Images that hold only noise do not count.

    without_margin: subtract from objects that are found by their texture what the window adds to them, which counts
    where they are small.
    """
    measured = evenly_spaced(keys, MEASURED_IMAGES)
    selection, diameters = ProposalSelection.fit(reader.read(key) for key in measured), []
    for key in measured:
        image = reader.read(key)
        if is_noise(grey(image)):
            continue
        proposal = selection.select(image)
        diameter = typical_diameter((proposal.probability(image) >= 0.5).astype(np.uint8))
        margin = _MARGIN_WINDOWS * proposal.window if without_margin and proposal.kind == "texture" else 0.0
        diameters += [] if diameter is None else [diameter - margin]
    return max(0.0, float(np.median(diameters))) if diameters else 0.0
