"""From a segmentor's maps to the cells of an image: the last step of every prediction."""

from dataclasses import dataclass

import numpy as np

from shared.instances.border_contrast import deepen_borders
from shared.instances.border_refinement import Sharpen, sharpened
from shared.instances.object_filters import MIN_DEPTH, deep_objects, sure_pieces
from shared.instances.watershed import MIN_SHARE, foreground, split_touching

SADDLE = 0.8
"""See `split_touching`, where there is a depth. F1 at 0.75, 0.8, 0.85, 0.9: phase contrast .547, .523, .483; stained
tissue .658, .670, .670, .662; fluorescence .814, .820, .825."""


@dataclass
class Found:
    """What a segmentor's maps say of an image, before touching cells are parted."""

    mask: np.ndarray
    """(H, W) uint8 {0, 1}, foreground"""
    depth: np.ndarray | None
    """(H, W) float32 in [0, 1], how deep a pixel lies in its cell, and less where the image looks as on a border; None
    where the segmentor has no such map."""
    plain: np.ndarray | None
    """The same, as the segmentor says."""

    def cells(
        self,
        saddle: float,
        *,
        min_distance: int = 4,
        min_area: int = 16,
        min_share: float = MIN_SHARE,
        min_depth: float = MIN_DEPTH,
    ) -> np.ndarray:
        """Label image (H, W); see `shared.instances.watershed.split_touching` and `shared.instances.object_filters` for the parameters."""
        labels = split_touching(self.mask, min_distance, min_area, saddle, self.depth, min_share)
        return labels if self.plain is None else deep_objects(labels, self.plain, min_depth)


def find(
    maps: np.ndarray, image: np.ndarray, *, threshold: float = 0.5, sure: float, sharpen: Sharpen, rows: int = 512
) -> Found:
    """Maps (M, H, W) float32 in [0, 1] of an image (H, W, C): foreground first, then depth where there is one.

    The maps are used up: where there are two, the first becomes the depth that falls where the image looks as on the
    mask's border. sure: the probability that every piece of the mask reaches somewhere, see `shared.instances.object_filters`.
    sharpen: how the mask's border moves to where the image changes. Maps and image may be memory maps, of which `rows`
    rows are read at a time.
    """
    mask = foreground(maps[0], threshold, rows=rows)
    if sure > threshold:
        mask = sure_pieces(mask, maps[0], sure, rows)
    mask = sharpened(image, mask, sharpen)
    if len(maps) < 2:
        return Found(mask, None, None)
    for y in range(0, len(mask), rows):
        maps[0, y : y + rows] = maps[1, y : y + rows]
    deepen_borders(maps[0], image, mask)
    return Found(mask, maps[0], maps[1])
