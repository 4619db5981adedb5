"""Predict the labelled images, or read what was predicted, and compare with the truth."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from components.evaluate.component import Evaluate
from components.evaluate.extremes import Extremes, panel
from components.evaluate.page import make_page
from components.evaluate.predictions import Case, Find, Found, of_label_set, of_model
from components.evaluate.score_files import score_of, score_row, write_scores
from components.evaluate.scored_images import known_pixels, read_pair, scorable
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.metrics.pixel_confusion import Pixels, count_pixels
from shared.metrics.tally import Tally, tally
from shared.reporting.page import Page
from shared.stage.declaration import Result
from shared.system.devices import threads
from shared.system.errors import UserError
from shared.system.parallel import in_order
from shared.system.progress import track

BYTES_PER_PIXEL = 40
"""Of memory that an image takes while it is worked on, about."""
TRAINING_LABELS = "Scored on images whose labels the model learned from: these scores are too high."


def run(stage: Evaluate) -> Result:
    """Score the images that have label images; their instances only where the truth holds instances."""
    if (stage.model is None) == (stage.predictions is None):
        raise UserError("--model, --predictions: give exactly one of them, what is to be scored")
    images, truth = ImageReader(stage.images), LabelReader(stage.truth)
    if not len(truth):
        return _nothing_to_score(stage, truth)
    labelled, on_training_labels, remark = scorable(truth, images, stage.use_labels)
    keys = labelled if stage.max_images == "all" else evenly_spaced(labelled, stage.max_images)
    total, pixels, rows, extremes = Tally(), Pixels(), [], Extremes()
    find = _source(stage)
    with ThreadPoolExecutor(threads()) as pool:  # instances of one image are made while the network sees the next
        each = in_order(
            pool,
            partial(_score, truth),
            _cases(images, truth, keys, find),
            lambda item: BYTES_PER_PIXEL * item[0].true.size,
        )
        for case, found, score, counted in track(each, "evaluate", len(keys)):
            total, pixels = total + score, pixels + counted
            row = score_row(case.key, images.entries[case.key].source, score)
            rows.append(row)
            extremes.add(score_of(row), row["source"], partial(panel, case.image, case.true, found.labels))
    write_scores(stage.scores, total, rows, on_training_labels)
    metrics = total.metrics() | {"images": float(total.images)}
    metrics |= {"scored_on_training_labels": 1.0} if on_training_labels else {}
    return Result(
        metrics=metrics,
        classification=pixels.classification(),
        page=make_page(metrics, total, pixels, rows, extremes, remark),
        remark=TRAINING_LABELS if on_training_labels else "",
    )


def _source(stage: Evaluate) -> Find:
    if stage.model is not None:
        return of_model(stage, stage.model)
    assert stage.predictions is not None
    return of_label_set(stage.predictions)


def _nothing_to_score(stage: Evaluate, truth: LabelReader) -> Result:
    reason = f"no image has a label image to score on; the truth holds {truth.contents()}"
    write_scores(stage.scores, Tally(), [])
    page = Page("evaluate")
    page.text(f"Skipped: {reason}.")
    return Result(skipped=reason, page=page)


Pending = tuple[Case, Callable[[], Found]]
"""A case, and the rest of its prediction, which any thread may do."""


def _cases(images: ImageReader, truth: LabelReader, keys: list[str], find: Find) -> Iterator[Pending]:
    for key in keys:
        image, true = read_pair(images, truth, key)
        case = Case(images.entries[key], image, true)
        yield case, find(case)


def _score(truth: LabelReader, item: Pending) -> tuple[Case, Found, Tally, Pixels]:
    case, found = item[0], item[1]()
    known = known_pixels(truth, case.key)
    instances = truth.entries[case.key].kind == "instances"
    score = tally(case.true * known, found.labels * known, instances=instances)
    return case, found, score, count_pixels(case.true, found.labels, known, found.probability)
