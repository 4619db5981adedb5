"""Images of a run for its page: each from the input to the prediction, beside the truth."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.reporting.pictures.image_labels import ImageLabels
from pipelines.reporting.pictures.run_artifacts import RunArtifacts
from pipelines.reporting.repetitions import any_repetition
from pipelines.run_folder.record import RunRecord
from shared.artifacts.keys import evenly_spaced
from shared.imaging.overlays import PREDICTION_COLOUR, TRUTH_COLOUR, colour_labels, outline, thumbnail, to_rgb8

LABELLED_SHOWN, UNLABELLED_SHOWN = 2, 3
"""Images with and without labels."""
CROP, OVERVIEW = 320, 620
"""px on the longer side."""
_PSEUDO, _IGNORED = (60, 200, 255), (255, 140, 60)
_BOTH, _PREDICTED_ONLY, _TRUE_ONLY = (80, 200, 120), (255, 170, 0), (230, 60, 200)
_OWN_MEMBERS = ("mask", "conf")
"""Members of a label set that are not shown in colours."""
Captioned = tuple[np.ndarray, str]
"""(H, W, 3) uint8, and what it shows."""
_Window = tuple[slice, slice]


@dataclass
class Gallery:
    """One image: the whole of it, and rows of crops."""

    key: str
    title: str
    overview: list[Captioned] = field(default_factory=list)
    crops: list[list[Captioned]] = field(default_factory=list)


@dataclass
class _Subject:
    """One image with the labels it has."""

    key: str
    rgb: np.ndarray
    """(H, W, 3) uint8"""
    predicted: ImageLabels
    true: ImageLabels
    window: _Window
    """The part that is shown enlarged."""


def galleries(run: Path, record: RunRecord) -> list[Gallery]:
    """Choose images and draw them: labelled ones first, preferably not learned from, then some of the split train.

    Images of which classes alone are known or predicted are shown by `class_rows`.
    """
    artifacts = RunArtifacts(run, record)
    images, truth = artifacts.images, artifacts.truth
    if images is None or not _has_objects(artifacts):
        return []
    labelled = [key for key in (truth.outlined() if truth else []) if key in images.entries]
    fresh = [key for key in labelled if key not in artifacts.learned()]
    others = [key for key in images.keys("train") if key not in labelled]
    chosen = [*evenly_spaced(fresh or labelled, LABELLED_SHOWN), *evenly_spaced(others, UNLABELLED_SHOWN)]
    return [_gallery(artifacts, key) for key in chosen]


def _has_objects(artifacts: RunArtifacts) -> bool:
    """Whether any label image or box is known, or no label at all."""
    found = [labels for labels in (artifacts.truth, artifacts.predictions) if labels]
    return bool(artifacts.pseudo) or not found or any(labels.outlined() for labels in found)


def _gallery(artifacts: RunArtifacts, key: str) -> Gallery:
    assert artifacts.images is not None
    entry = artifacts.images.entries[key]
    rgb = to_rgb8(artifacts.images.read(key))
    size = rgb.shape[0], rgb.shape[1]
    predicted, true = (
        found.of(key, size) if found else ImageLabels() for found in (artifacts.predictions, artifacts.truth)
    )
    foreground = predicted.foreground(size)
    window = _window(true.foreground(size) if foreground is None else foreground, size)
    subject = _Subject(key, rgb, predicted, true, window)
    learned = ", labels learned from" if key in artifacts.learned() else ""
    title = f"{entry.source} ({entry.split}, {entry.width} × {entry.height} px{learned})"
    rows = [list(_results(artifacts, subject)), *_pseudo_labels(artifacts, subject)]
    return Gallery(key, title, _overview(subject), [row for row in rows if row])


def _named(subject: _Subject) -> Iterator[tuple[str, ImageLabels, tuple[int, int, int], str]]:
    """(name, labels, colour, caption) of the prediction and of the truth, where there are any."""
    for name, labels, colour in (
        ("prediction", subject.predicted, PREDICTION_COLOUR),
        ("truth", subject.true, TRUTH_COLOUR),
    ):
        if caption := labels.caption():
            yield name, labels, colour, caption


def _overview(subject: _Subject) -> list[Captioned]:
    """The whole image, with the outlines of its prediction and its truth."""
    width = 2 if max(subject.rgb.shape[:2]) > OVERVIEW else 1
    images = [(thumbnail(subject.rgb, OVERVIEW), "input")]
    for name, labels, colour, caption in _named(subject):
        images.append((thumbnail(labels.drawn(subject.rgb, colour, width), OVERVIEW), f"{name}: {caption}"))
    return images


def _results(artifacts: RunArtifacts, subject: _Subject) -> Iterator[Captioned]:
    """Crops of the input, of what the pseudo-labels hold besides masks, of the prediction and of the truth."""
    window, predicted, true = subject.window, subject.predicted.plane, subject.true.plane
    crop = np.ascontiguousarray(subject.rgb[window])
    yield crop, f"input, from x {window[1].start}, y {window[0].start} px"
    yield from _other_members(artifacts, subject)
    for name, labels, colour, _ in _named(subject):
        yield labels.drawn(subject.rgb, colour)[window], name
    if predicted is not None and true is not None:
        drawn = compare_masks(crop, predicted[window], true[window])
        yield drawn, "green: both; orange: prediction only; magenta: truth only"


def _other_members(artifacts: RunArtifacts, subject: _Subject) -> Iterator[Captioned]:
    """Members such as `cluster` in colours, of the first and the last set that has them."""
    found = [
        (f"{task}: {member}", reader, member)
        for task, reader in artifacts.pseudo.items()
        if subject.key in reader.entries
        for member in reader.entries[subject.key].members
        if member not in _OWN_MEMBERS
    ]
    for caption, reader, member in found if len(found) < 2 else (found[0], found[-1]):
        yield colour_labels(reader.plane(subject.key, member)[subject.window]), caption


def _pseudo_labels(artifacts: RunArtifacts, subject: _Subject) -> list[list[Captioned]]:
    """A row for each task that makes pseudo-labels, with a crop for each repetition."""
    crop = np.ascontiguousarray(subject.rgb[subject.window])
    rows: dict[str, list[Captioned]] = {}
    for task, reader in artifacts.pseudo.items():
        if subject.key in reader.entries:
            mask = (reader.mask(subject.key)[subject.window] > 0).astype(np.uint8)
            drawn = outline(crop, mask, _PSEUDO)
            drawn = _tint(drawn, reader.conf(subject.key)[subject.window] == 0, _IGNORED, 0.7)
            rows.setdefault(any_repetition(task), []).append((drawn, task))
    return list(rows.values())


def predictions_of(artifacts: RunArtifacts, key: str) -> tuple[np.ndarray, str]:
    """Draw the predictions on an image: (H, W, 3) uint8, and what they are."""
    assert artifacts.images is not None and artifacts.predictions is not None
    rgb = to_rgb8(artifacts.images.read(key))
    found = artifacts.predictions.of(key, rgb.shape[:2])
    return found.drawn(rgb, PREDICTION_COLOUR, 2), found.caption()


def compare_masks(rgb: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Tint the foreground of prediction and truth on an image.

    rgb: (H, W, 3) uint8; predicted, true: (H, W) label images. Returns (H, W, 3) uint8: green where both have
    foreground, orange where only the prediction has, magenta where only the truth has.
    """
    drawn = _tint(rgb, (predicted > 0) & (true > 0), _BOTH, 0.45)
    drawn = _tint(drawn, (predicted > 0) & (true == 0), _PREDICTED_ONLY, 0.75)
    return _tint(drawn, (predicted == 0) & (true > 0), _TRUE_ONLY, 0.75)


def _tint(rgb: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], strength: float) -> np.ndarray:
    drawn = rgb.astype(np.float32)
    drawn[mask] = (1 - strength) * drawn[mask] + strength * np.asarray(colour, np.float32)
    return np.rint(drawn).astype(np.uint8)


def _window(labels: np.ndarray | None, size: tuple[int, ...]) -> _Window:
    """Choose the CROP x CROP px with most foreground, of windows half a crop apart."""
    best, at = -1, (0, 0)
    for y in range(0, max(1, size[0] - CROP + 1), CROP // 2):
        for x in range(0, max(1, size[1] - CROP + 1), CROP // 2):
            count = 0 if labels is None else int(np.count_nonzero(labels[y : y + CROP, x : x + CROP]))
            if count > best:
                best, at = count, (y, x)
    return slice(at[0], min(at[0] + CROP, size[0])), slice(at[1], min(at[1] + CROP, size[1]))
