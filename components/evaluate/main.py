"""Predict labelled images, or read their predictions, and compare with the truth."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from components.evaluate.component import Evaluate
from components.evaluate.page import make_page
from components.evaluate.predictions import (
    LabelledImage,
    Predict,
    Prediction,
    segmentor_predictions,
    stored_predictions,
)
from components.evaluate.ranked_panels import RankedPanels, draw_panel
from components.evaluate.score_files import ranking_score, score_row, write_scores
from components.evaluate.scored_images import ScoredImages, choose_images, known_pixels, read_pair
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.metrics.classification import Classification
from shared.metrics.roc import ProbabilityHistogram, probability_histogram
from shared.metrics.tally import Tally, tally
from shared.reporting.page import Page
from shared.stage.declaration import Result
from shared.system.devices import threads
from shared.system.errors import UserError
from shared.system.parallel import in_order
from shared.system.progress import track

_BYTES_PER_PIXEL = 40
"""Memory of an image in work, roughly."""
Pending = tuple[LabelledImage, Callable[[], Prediction]]
"""An image, and the part of its prediction that any thread may do."""


def run(stage: Evaluate) -> Result:
    """Score the images that have label images; instances only where the truth holds instances."""
    if (stage.model is None) == (stage.predictions is None):
        raise UserError("--model, --predictions: give exactly one of them; it is what is scored")
    images, truth = ImageReader(stage.images), LabelReader(stage.truth)
    if not len(truth):
        return _skip(stage, truth)
    chosen = choose_images(truth, images, stage.use_labels)
    keys = chosen.keys if stage.max_images == "all" else evenly_spaced(chosen.keys, stage.max_images)
    total, histogram, rows, panels = Tally(), ProbabilityHistogram(), [], RankedPanels()
    pending = _predict(images, truth, keys, _source(stage))
    with ThreadPoolExecutor(threads()) as pool:  # makes the instances of an image while the network sees the next one
        scored = in_order(pool, partial(_score, truth), pending, lambda item: _BYTES_PER_PIXEL * item[0].truth.size)
        for item, predicted, score, counts in track(scored, "evaluate", len(keys)):
            total, histogram = total + score, histogram + counts
            row = score_row(item.key, item.entry.source, score)
            rows.append(row)
            draw = partial(draw_panel, item.image, item.truth, predicted.labels)
            panels.add(ranking_score(row), item.entry.source, draw)
    write_scores(stage.scores, total, rows, chosen.learned_from)
    metrics = total.metrics() | {"images": float(total.images)}
    remark = _remark(chosen)
    return Result(
        metrics=metrics | ({"scored_on_training_labels": 1.0} if chosen.learned_from else {}),
        classification=Classification(labels=["background", "cell"], confusion=total.confusion, roc=histogram.roc()),
        page=make_page(total, rows, panels, remark),
        remark=remark,
    )


def _source(stage: Evaluate) -> Predict:
    if stage.model is not None:
        return segmentor_predictions(stage, stage.model)
    assert stage.predictions is not None
    return stored_predictions(stage.predictions)


def _skip(stage: Evaluate, truth: LabelReader) -> Result:
    reason = f"no image has a label image to score against; the truth holds {truth.contents()}"
    write_scores(stage.scores, Tally(), [])
    page = Page("evaluate")
    page.text(f"Skipped: {reason}.")
    return Result(skipped=reason, page=page)


def _remark(chosen: ScoredImages) -> str:
    if chosen.learned_from:
        return "The model learned from the labels of these images, so the scores are too high."
    if chosen.left_out:
        return f"{chosen.left_out} more images are left out, because the model learned from their labels."
    return ""


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
