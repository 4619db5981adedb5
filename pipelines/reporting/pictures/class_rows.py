"""Small pictures of the images that a run classified, a row for each outcome or class, the surest first."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipelines.reporting.pictures.image_labels import class_caption
from pipelines.reporting.pictures.panels import Captioned
from pipelines.reporting.pictures.run_artifacts import RunArtifacts
from pipelines.run_folder.record import RunRecord
from shared.artifacts.annotation import ImageClass
from shared.artifacts.keys import evenly_spaced
from shared.imaging.overlays import thumbnail, to_rgb8

SHOWN, SIDE = 8, 160
"""Images of a row; px on the longer side."""


def class_rows(run: Path, record: RunRecord) -> list[tuple[str, list[Captioned]]]:
    """Return (title, pictures) of each row; none where no image was classified. Captions tell the truth, if known."""
    artifacts = RunArtifacts(run, record)
    if artifacts.images is None or artifacts.predictions is None:
        return []
    found, truth = artifacts.predictions.classes, artifacts.truth.classes if artifacts.truth else {}
    rows: dict[str, list[str]] = {}
    for key in sorted(set(found) & set(artifacts.images.entries), key=lambda key: -(found[key].score or 0.0)):
        rows.setdefault(found[key].outcome or found[key].name, []).append(key)
    drawn = []
    for name, keys in sorted(rows.items()):
        shown = evenly_spaced(keys, SHOWN)
        title = f"{name}: {len(keys)} images" + (", some of them" if len(shown) < len(keys) else "")
        pictures = [
            (thumbnail(to_rgb8(artifacts.images.read(key)), SIDE), _caption(key, found, truth)) for key in shown
        ]
        drawn.append((title, pictures))
    return drawn


def _caption(key: str, found: Mapping[str, ImageClass], truth: Mapping[str, ImageClass]) -> str:
    """Class and score, without the outcome, which is the row's title; why an image is abstained from; the truth."""
    one = found[key]
    reason = f", {one.reason}" if one.outcome == "abstain" and one.reason else ""
    true = f"; truth: {truth[key].name}" if key in truth else ""
    return f"{class_caption(replace(one, outcome=None))}{reason}{true}"
