"""The page of `cluster`."""

from dataclasses import dataclass

import numpy as np

from components.cluster.foreground_model import ForegroundModel
from shared.imaging.overlays import colour_labels, outline, to_rgb8
from shared.reporting.page import Page


@dataclass
class Panel:
    """One image of the page."""

    key: str
    image: np.ndarray
    """(H, W, C)"""
    cluster: np.ndarray
    """(H, W) uint8: cluster plus 1."""
    probability: np.ndarray
    """(H, W) float32, foreground."""


def make_page(model: ForegroundModel, panels: list[Panel]) -> Page:
    """Show the selected proposals and clusters, and the foreground of some images."""
    page = Page("cluster")
    _add_proposals(page, model)
    _add_clusters(page, model)
    for panel in panels:
        page.heading(panel.key)
        rgb8 = to_rgb8(panel.image)
        soft = np.rint(panel.probability * 255).clip(0, 255).astype(np.uint8)
        page.images(
            [
                (rgb8, "input"),
                (colour_labels(panel.cluster), "clusters"),
                (soft, "foreground probability"),
                (outline(rgb8, (panel.probability >= 0.5).astype(np.uint8), width=2), "proposal"),
            ]
        )
    return page


def _add_proposals(page: Page, model: ForegroundModel) -> None:
    served = model.proposal_counts()
    page.heading("Classical proposals")
    page.text(
        "An image whose intensities fall into two classes is thresholded on the channel with the highest separability. "
        "Where these look little like cells, but what is darker or brighter than the background does, that is taken; "
        "other images are thresholded by texture. Otsu's separability of a normal distribution, without classes, "
        "is 0.64; of what deviates from the background the table shows the plausibility instead."
        if model.proposal is None
        else "The labels selected the proposal."
    )
    candidates = model.proposal_selection.candidates()
    rows = [[one.name, one.separability, served.get(one.name, 0)] for one in candidates]
    page.table(["proposal", "separability", "images it serves, of those it was fitted to"], rows)


def _add_clusters(page: Page, model: ForegroundModel) -> None:
    selection = model.cluster_selection
    foreground = set(selection.foreground_clusters())
    page.heading("Clusters")
    page.text(
        f"Weight of the clusters relative to the proposals: {model.cluster_weight:.2f}. "
        f"Dice of the foreground clusters with the reference: {selection.dice:.2f}."
    )
    page.table(["clusters", "cross-validated Dice"], [[str(k), value] for k, value in model.agreement.items()])
    clusters = zip(selection.foreground_share, selection.probability, strict=True)
    rows = [
        [number + 1, float(share), float(probability), "cell" if number in foreground else "background"]
        for number, (share, probability) in enumerate(clusters)
    ]
    page.table(["cluster", "share of foreground in the reference", "probability", "class"], rows)
