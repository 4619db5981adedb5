"""How to make cells of a segmentor's maps: how sure it is of them, and from drawn images how they are parted."""

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import spread
from shared.artifacts.label_set import LabelReader
from shared.imaging.tiling import middle
from shared.instances.border_refinement import Sharpen
from shared.instances.label_image import typical
from shared.instances.object_filters import SURE, peaks_of
from shared.instances.postprocess import Found, find
from shared.instances.watershed import foreground
from shared.metrics.instances import Tally, tally
from shared.models.segmentor import Segmentor, SegmentorConfig
from shared.models.tiled_inference import predict, predict_maps
from shared.system.log import log
from shared.system.progress import track

SADDLES = (0.8, 0.85, 0.75, 0.9, 0.7, 0.95, 0.6, 0.5, 0.4)
"""What is tried; the first of equals is taken."""
WAYS: tuple[Sharpen, ...] = ("none", "means", "edges")
LOOK = 1024
"""px; of a larger image its middle is looked at."""
TILE = 128
LOOKED_AT, PART = 16, 384
"""Images that tell how sure it is of cells, and px on the side of their middle."""


def learn_parting(
    segmentor: Segmentor,
    config: SegmentorConfig,
    reader: ImageReader,
    labels: LabelReader,
    drawn: list[str],
    where: str,
) -> SegmentorConfig:
    """The config with the way to sharpen, and the saddle, that give the highest Dice + F1 on the images `drawn`.

    As it is where their labels hold no two objects.
    """
    cases: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for key in track(drawn, "train_segmentor: parting", len(drawn)):
        if labels.entries[key].kind == "instances":
            image, truth = (middle(plane, LOOK) for plane in (reader.read(key), labels.mask(key)))
            cases.append((predict_maps(segmentor, config, image, tile=TILE, batch_size=8, device=where), image, truth))
    if max((int(truth.max(initial=0)) for *_, truth in cases), default=0) < 2:
        return config
    scores: dict[tuple[Sharpen, float], float] = {}
    for sharpen in sorted(WAYS, key=lambda way: way != config.sharpen):
        found = [(find(maps.copy(), image, sure=config.sure, sharpen=sharpen), truth) for maps, image, truth in cases]
        scores |= {(sharpen, saddle): _score(found, saddle) for saddle in SADDLES}
    sharpen, saddle = max(scores, key=lambda choice: scores[choice])
    log.info("of %d drawn images: saddle %g, sharpen %s", len(cases), saddle, sharpen)
    return config.model_copy(update={"sharpen": sharpen, "saddle": saddle})


def learn_sure(
    segmentor: Segmentor, config: SegmentorConfig, reader: ImageReader, keys: list[str], where: str
) -> SegmentorConfig:
    """The config with `sure` at a share of the probability that its typical object reaches, on some of the images.

    The share is `shared.instances.object_filters.SURE`; typical: of each image the median over the objects' pixels, and the median of
    these over the images. A network that is sure of nothing yet, as after a few steps, so keeps its objects.
    """
    peaks = []
    for key in track(chosen := spread(keys, LOOKED_AT), "train_segmentor: sure", len(chosen)):
        probability = predict(segmentor, config, middle(reader.read(key), PART), tile=TILE, batch_size=16, device=where)
        peak, area = peaks_of(foreground(probability, 0.5), probability)
        if len(peak):
            peaks.append(typical(peak, area))
    return config.model_copy(update={"sure": round(SURE * float(np.median(peaks)), 3)}) if peaks else config


def _score(found: list[tuple[Found, np.ndarray]], saddle: float) -> float:
    numbers = sum((tally(truth, one.cells(saddle)) for one, truth in found), Tally()).metrics()
    return numbers["dice"] + numbers["f1"]
