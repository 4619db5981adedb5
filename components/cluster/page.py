"""The page of `cluster`."""

from dataclasses import dataclass

import numpy as np

from components.cluster.foreground_model import Rule
from shared.imaging.overlays import colour_labels, outline, to_rgb8
from shared.reporting.page import Page


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


def make_page(rule: Rule, panels: list[Panel]) -> Page:
    """Which proposals and which clusters were chosen, and what came of it on some images."""
    page = Page("cluster")
    _proposals(page, rule)
    _clusterings(page, rule)
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


def _proposals(page: Page, rule: Rule) -> None:
    served = rule.proposals()
    page.heading("Classical proposals")
    page.text(
        "Where intensities fall into two classes they are thresholded, on the channel where they do most; elsewhere "
        "texture is. Otsu's separability tells: a normal distribution, without classes, has 0.64."
        if rule.proposal is None
        else "The labels chose among them."
    )
    rows = [[one.name, one.separability, served.get(one.name, 0)] for one in rule.choice.each()]
    page.table(["proposal", "separability", "images judged that it serves"], rows)


def _clusterings(page: Page, rule: Rule) -> None:
    foreground = rule.foreground
    chosen = set(foreground.clusters())
    page.heading("Clusters")
    page.text(
        f"Weight of the clusters beside the proposals: {rule.cluster_weight:.2f}. "
        f"Dice of the foreground clusters with what judged them: {foreground.dice:.2f}."
    )
    page.table(
        ["clusters", "agreement on images that did not judge them"],
        [[str(k), value] for k, value in rule.agreement.items()],
    )
    rows = [
        [number + 1, float(share), float(foreground.probability[number]), "cell" if number in chosen else "background"]
        for number, share in enumerate(foreground.share)
    ]
    page.table(["cluster", "share called foreground", "probability", "verdict"], rows)
