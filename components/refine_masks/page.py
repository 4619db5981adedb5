"""The page of `refine_masks`."""

from dataclasses import dataclass

import numpy as np

from components.refine_masks.pseudo_masks import PseudoMask
from shared.imaging.overlays import outline, to_rgb8
from shared.reporting.page import Page


@dataclass
class Panel:
    """One image of the page."""

    key: str
    image: np.ndarray
    """(H, W, C)"""
    proposal: np.ndarray
    """(H, W) uint8 {0, 1}"""
    refined: PseudoMask


def make_page(method: str, metrics: dict[str, float], panels: list[Panel]) -> Page:
    """Show how borders were refined, and the proposals and pseudo-masks of some images."""
    page = Page("refine_masks")
    agreement = f"Agreement with the previous round: {metrics['agreement']:.3f}. " if "agreement" in metrics else ""
    page.text(
        f"Borders: {method}. The image gradient on the proposals' borders is {metrics['edge_score']:.2f} times that "
        f"around them. {agreement}"
        f"Foreground {100 * metrics['foreground_share']:.1f} %, ignored {100 * metrics['ignored_share']:.1f} %, "
        f"smallest region kept {metrics['min_area']:.0f} px² (median over images)."
    )
    for panel in panels:
        page.heading(panel.key)
        rgb8 = to_rgb8(panel.image)
        page.images(
            [
                (rgb8, "input"),
                (outline(rgb8, panel.proposal, width=2), "proposal"),
                (outline(rgb8, panel.refined.labels, width=2), "refined"),
                (panel.refined.conf, "confidence (black: ignored)"),
            ]
        )
    return page
