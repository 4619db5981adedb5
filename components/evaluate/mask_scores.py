"""Score label images: predict or read them, and compare them with the truth."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from components.evaluate.component import Evaluate
from components.evaluate.mask_page import show_masks
from components.evaluate.mask_predictions import (
    LabelledImage,
    Predict,
    Prediction,
    segmentor_predictions,
    stored_predictions,
)
from components.evaluate.ranked_panels import RankedPanels, draw_panel
from components.evaluate.score_files import COLUMNS, ranking_score, score_row
from components.evaluate.scored_images import (
    PredictedImages,
    known_pixels,
    read_pair,
    without_abstained,
    without_failed,
)
from components.evaluate.scored_part import ScoredPart
from components.evaluate.subject import Subject
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.data.labelled_images import ScoredImages, choose_images
from shared.metrics.classification import Classification
from shared.metrics.roc import ProbabilityHistogram, probability_histogram
from shared.metrics.tally import Tally, tally
from shared.system.devices import threads
from shared.system.parallel import in_order
from shared.system.progress import track

_BYTES_PER_PIXEL = 40
"""Memory of an image in work, roughly."""
Pending = tuple[LabelledImage, Callable[[], Prediction]]
"""An image, and the part of its prediction that any thread may do."""


def score_masks(stage: Evaluate, subject: Subject, images: ImageReader, truth: LabelReader) -> ScoredPart | None:
    """Score the images that have label images; instances only where the truth holds instances.

    None where the split has no such image.
    """
    chosen = choose_images(truth, images, stage.use_labels, stage.split)
    found = subject.predictions
    left = without_failed(chosen.keys, found)
    left = left if found is None else without_abstained(left, found, found.entries)
    if not left.keys:
        return None
    keys = left.keys if stage.max_images == "all" else evenly_spaced(left.keys, stage.max_images)
    total, histogram, rows, panels = Tally(), ProbabilityHistogram(), [], RankedPanels()
    pending = _predict(images, truth, keys, _source(stage, subject))
    with ThreadPoolExecutor(threads()) as pool:  # makes the instances of an image while the network sees the next one
        scored = in_order(pool, partial(_score, truth), pending, lambda item: _BYTES_PER_PIXEL * item[0].truth.size)
        for item, predicted, score, counts in track(scored, "evaluate", len(keys)):
            total, histogram = total + score, histogram + counts
            row = score_row(item.key, item.entry.source, score)
            rows.append(row)
            draw = partial(draw_panel, item.image, item.truth, predicted.labels)
            panels.add(ranking_score(row), item.entry.source, draw)
    level = 2 if subject.scored_by == ("masks",) else 3
    remark = _remark(chosen, left)
    return ScoredPart(
        title="Masks",
        metrics=total.metrics(),
        columns=COLUMNS,
        rows=rows,
        classification=Classification(labels=["background", "cell"], confusion=total.confusion, roc=histogram.roc()),
        show=partial(show_masks, total=total, rows=rows, panels=panels, remark=remark, level=level),
        counts={"true_objects": total.true, "predicted_objects": total.predicted},
        learned_from=chosen.learned_from,
        remark=remark,
    )


def _source(stage: Evaluate, subject: Subject) -> Predict:
    if subject.model is not None:
        return segmentor_predictions(stage, subject.model)
    assert subject.predictions is not None
    return stored_predictions(subject.predictions)


def _remark(chosen: ScoredImages, left: PredictedImages) -> str:
    texts = []
    if chosen.learned_from:
        texts.append("The model learned from the labels of these images, so the scores are too high.")
    elif chosen.left_out:
        texts.append(f"{chosen.left_out} more images are left out, because the model learned from their labels.")
    return " ".join([*texts, *left.remarks()])


def _predict(images: ImageReader, truth: LabelReader, keys: list[str], predict: Predict) -> Iterator[Pending]:
    for key in keys:
        image, labels = read_pair(images, truth, key)
        item = LabelledImage(images.entries[key], image, labels)
        yield item, predict(item)


def _score(truth: LabelReader, pending: Pending) -> tuple[LabelledImage, Prediction, Tally, ProbabilityHistogram]:
    item, predicted = pending[0], pending[1]()
    known = known_pixels(truth, item.key)
    instances = truth.entries[item.key].kind == "instances"
    score = tally(item.truth, predicted.labels, known=known, instances=instances)
    if predicted.probability is None:
        return item, predicted, score, ProbabilityHistogram()
    return item, predicted, score, probability_histogram(item.truth, predicted.probability, known)
