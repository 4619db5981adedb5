"""The page of `cluster`."""

from dataclasses import dataclass

import numpy as np

from components.cluster.foreground import Foreground
from shared.overlays import colour_labels, outline, to_rgb8
from shared.proposals import Proposal
from shared.report import Page


@dataclass
class Panel:
    """One image of the page."""

    key: str
    image: np.ndarray
    """(H, W, C)"""
    number: np.ndarray
    """(H, W) uint8: cluster plus 1."""
    probability: np.ndarray
    """(H, W) float32"""


def make_page(proposal: Proposal, foreground: Foreground, cluster_weight: float, panels: list[Panel]) -> Page:
    """Which proposal and which clusters were chosen, and what came of it on some images."""
    page = Page("cluster")
    page.text(
        f"Classical proposal: {proposal.kind} (Otsu's separability {proposal.separability:.2f}; a normal distribution, "
        f"without classes, has 0.64). Weight of the clusters beside it: {cluster_weight:.2f}. "
        f"Dice of the foreground clusters with what judged them: {foreground.dice:.2f}."
    )
    chosen = set(foreground.clusters())
    rows = [
        [number + 1, float(share), float(foreground.probability[number]), "cell" if number in chosen else "background"]
        for number, share in enumerate(foreground.share)
    ]
    page.table(["cluster", "share called foreground", "probability", "verdict"], rows)
    for panel in panels:
        page.heading(panel.key)
        rgb8 = to_rgb8(panel.image)
        soft = np.rint(panel.probability * 255).clip(0, 255).astype(np.uint8)
        page.images(
            [
                (rgb8, "input"),
                (colour_labels(panel.number), "clusters"),
                (soft, "foreground probability"),
                (outline(rgb8, (panel.probability >= 0.5).astype(np.uint8), width=2), "proposal"),
            ]
        )
    return page
