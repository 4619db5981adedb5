"""Where to part cells that touch, learned from the images whose cells a person drew."""

import numpy as np

from shared.cells import Found, find
from shared.images import ImageReader
from shared.labels import LabelReader
from shared.log import log
from shared.metrics import Tally, tally
from shared.models.segmentor import Segmentor, SegmentorConfig
from shared.progress import track
from shared.tiling import predict_maps

SADDLES = (0.85, 0.8, 0.9, 0.75, 0.95, 0.7, 0.6, 0.5, 0.4)
"""What is tried; the first of equals is taken."""
LOOK = 1024
"""px; of a larger image its middle is looked at."""
TILE = 128


def learn_saddle(
    segmentor: Segmentor,
    config: SegmentorConfig,
    reader: ImageReader,
    labels: LabelReader,
    drawn: list[str],
    where: str,
) -> float:
    """The saddle (see `shared.instances.split_touching`) with the highest F1 at IoU 0.5 on the images `drawn`.

    The segmentor's present one where their labels hold no two objects.
    """
    cases: list[tuple[Found, np.ndarray]] = []
    for key in track(drawn, "train_segmentor: parting", len(drawn)):
        if labels.entries[key].kind != "instances":
            continue
        image, truth = (_middle(plane) for plane in (reader.read(key), labels.mask(key)))
        maps = predict_maps(segmentor, config, image, tile=TILE, batch_size=8, device=where)
        cases.append((find(maps, image), truth))
    if max((int(truth.max(initial=0)) for _, truth in cases), default=0) < 2:
        return config.saddle
    scores = {saddle: _f1(cases, saddle) for saddle in SADDLES}
    best = max(scores, key=lambda saddle: scores[saddle])
    log.info("saddle %g: F1 %.3f on the %d images that were drawn", best, scores[best], len(cases))
    return best


def _f1(cases: list[tuple[Found, np.ndarray]], saddle: float) -> float:
    return sum((tally(truth, found.cells(saddle)) for found, truth in cases), Tally()).metrics()["f1"]


def _middle(plane: np.ndarray) -> np.ndarray:
    top, left = (max(0, (length - LOOK) // 2) for length in plane.shape[:2])
    return plane[top : top + LOOK, left : left + LOOK]
