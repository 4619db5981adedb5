"""Predict images with a classifier, a detector and a segmentor; write files that people and other programs open."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from components.infer.component import Infer
from components.infer.failures import FAILURES_FILE, rejected_files, write_reasons
from components.infer.image_batches import ImageInWork, WaitingTime, batches, reason
from components.infer.models import Models, present_models
from components.infer.page import PANELS, Panel, make_page, panel_of
from components.infer.stored_size import at_stored_size
from components.infer.totals import Totals
from components.infer.unlike import UNLIKE_FILE, InstanceStatistics, mean_estimate, unlike
from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import NOTE_FAILED, LabelWriter
from shared.assessment.estimated_dice import MIN_TRUSTED, REMEDY
from shared.exporters.exporter import Exporter, PredictedImage
from shared.exporters.registry import open_exporters
from shared.reporting.page import Page
from shared.stage.declaration import Result
from shared.system.devices import threads
from shared.system.errors import UserError
from shared.system.parallel import in_order
from shared.system.progress import track


@dataclass
class FinishedImage:
    """A predicted image whose own files are written."""

    predicted: PredictedImage
    exported: PredictedImage
    """The same in the size of the image's file."""
    failure: str
    """Why it is not predicted; empty where it is."""
    prepared: list[Any]
    """What each exporter appends to its file of all images."""
    panel: Panel | None
    """Picture for the page."""
    statistics: InstanceStatistics | None = None
    """Of the instances; None where no segmentor was applied."""


def run(stage: Infer) -> Result:
    """Predict every image and write it; only counts and what the page shows are kept in memory."""
    folders = present_models(stage)
    absent = [kind for kind in ("classifier", "detector", "segmentor") if getattr(stage, kind) and kind not in folders]
    if not folders:
        return _skip(stage, absent)
    images, models = ImageReader(stage.images), Models(stage, folders)
    totals, panels, waiting = Totals(), [], WaitingTime()
    statistics: list[InstanceStatistics] = []
    failures = rejected_files(stage.images)
    with ExitStack() as stack:
        writer = stack.enter_context(LabelWriter(stage.predictions, "prediction"))
        exporters = open_exporters(
            stage.formats, models.contents, stage.files, [entry.stored() for entry in images.sorted_entries()]
        )
        for exporter in exporters:
            stack.enter_context(exporter)
        pool = stack.enter_context(ThreadPoolExecutor(threads()))  # finishes images while the network sees the next one
        work = _predict(images, models, totals, waiting, stage.image_batch)
        finished = in_order(pool, lambda item: _finish(item, images, models, exporters), work, _bytes)
        for one in track(finished, "infer", len(images)):
            if one.failure:
                failures.append((one.predicted.entry.source, one.failure))
                writer.notes.setdefault(NOTE_FAILED, []).append(one.predicted.entry.key)
                continue
            totals.add(one.exported)
            statistics += [one.statistics] if one.statistics else []
            _write(writer, one.predicted)
            for exporter, prepared in zip(exporters, one.prepared, strict=True):
                exporter.append(prepared)
            panels += [one.panel] if one.panel else []
    _check_any(totals, failures)
    write_reasons(stage.files / FAILURES_FILE, sorted(failures))
    to_check, estimate = unlike(statistics), mean_estimate(statistics)
    write_reasons(stage.files / UNLIKE_FILE, to_check)
    remark = " ".join(filter(None, [_trust(estimate), _remark(totals, failures, absent, models)]))
    metrics = totals.metrics(models.contents) | {"failed": float(len(failures))} | waiting.metrics()
    metrics |= _trust_metrics(estimate, to_check) if statistics else {}
    page = make_page(totals, panels, failures, to_check, models, remark)
    return Result(metrics=metrics, page=page, remark=remark)


def _skip(stage: Infer, absent: list[str]) -> Result:
    if not absent:
        raise UserError("--classifier, --detector, --segmentor: none is given; give at least one of them")
    reason = f"no model to predict with: {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} absent"
    with LabelWriter(stage.predictions, "prediction"):
        pass
    page = Page("infer")
    page.text(f"Skipped: {reason}.")
    return Result(skipped=reason, page=page)


def _predict(
    images: ImageReader, models: Models, totals: Totals, waiting: WaitingTime, image_batch: int
) -> Iterator[ImageInWork]:
    """Yield each image with what the networks find, and mark the first of each outcome to be shown."""
    shown: Counter[str] = Counter()
    for batch in waiting(batches(images, image_batch)):
        for item in models.predict(batch):
            outcome = (item.image_class and item.image_class.outcome) or ""
            item.shown = not item.failure and shown[outcome] < PANELS
            shown[outcome] += item.shown
            totals.full_tiles += item.full_tiles
            yield item


def _finish(item: ImageInWork, images: ImageReader, models: Models, exporters: list[Exporter]) -> FinishedImage:
    """Make the instances of an image, and write its own files; in any thread."""
    predicted = PredictedImage(item.number, item.entry, item.image, item.image_class, item.boxes)
    failure = item.failure
    if not failure and item.maps is not None and models.segmentor is not None:
        try:
            predicted.instances = models.segmentor.instances(item.image, item.entry, item.maps)
        except Exception as error:  # listed, like a failure of the network
            failure = f"cannot be predicted: {reason(error)}"
    if failure:
        return FinishedImage(predicted, predicted, failure, [], None)
    enlarged = item.entry.magnification > 1
    exported = at_stored_size(predicted, images.read_stored(item.entry.key)) if enlarged else predicted
    prepared = [exporter.prepare(exported) for exporter in exporters]
    panel = panel_of(exported) if item.shown else None
    instances = exported.instances
    statistics = None if instances is None else InstanceStatistics.of(predicted.entry.source, instances)
    predicted.image = exported.image = item.image = item.image[:0].copy()  # its batch is alive for a while
    item.maps = None
    return FinishedImage(predicted, exported, "", prepared, panel, statistics)


def _write(writer: LabelWriter, item: PredictedImage) -> None:
    """Write the prediction of an image into the LabelSet."""
    entry = item.entry
    if item.image_class is not None:
        writer.classify(entry.key, item.image_class)
    if item.boxes is not None:
        writer.annotate(entry.key, (entry.height, entry.width), item.boxes)
    if item.instances is not None:
        writer.add(entry.key, item.instances.labels, "instances", scores=item.instances.scores)


def _bytes(item: ImageInWork) -> int:
    """Memory of an image in work, roughly."""
    return 2 * item.image.nbytes + (6 * item.maps.nbytes if item.maps is not None else 0)


def _check_any(totals: Totals, failures: list[tuple[str, str]]) -> None:
    """Raise UserError where no image is predicted although there are some."""
    if not totals.images and failures:
        source, reason = failures[-1]
        raise UserError(f"--images: none of {len(failures)} images can be predicted; {source}: {reason}")


def _trust_metrics(estimate: float | None, to_check: list[tuple[str, str]]) -> dict[str, float]:
    """Metrics of what is seen without labels."""
    known = {} if estimate is None else {"estimated_dice": estimate}
    return known | {"trusted": float(estimate is not None and estimate >= MIN_TRUSTED), "unlike": float(len(to_check))}


def _trust(estimate: float | None) -> str:
    """Say what to do where the masks of the whole set do not look like cells."""
    if estimate is None or estimate >= MIN_TRUSTED:
        return ""
    return (
        f"The masks do not look like cells: the estimated Dice is {estimate:.2f}, and below {MIN_TRUSTED} masks are "
        f"mostly wrong. {REMEDY}"
    )


def _remark(totals: Totals, failures: list[tuple[str, str]], absent: list[str], models: Models) -> str:
    """Say how many images are abstained from or not predicted, and which models are missing."""
    sentences = []
    if abstained := totals.outcomes["abstain"]:
        sentences.append(f"Images that need a person (abstain): {abstained} of {totals.images}; classes.csv says why.")
    if failures:
        sentences.append(f"Images that could not be predicted: {len(failures)}; failures.csv says why.")
    if absent:
        sentences.append(f"Without {' and '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} absent.")
    if totals.full_tiles:
        sentences.append(
            f"In {totals.full_tiles} tiles the detector used all its queries: there may be more objects than it found."
        )
    if models.classifier is not None and models.classifier.gate.note:
        sentences.append(models.classifier.gate.note)
    return " ".join(sentences)
