"""Collect the boxes to learn from, and divide the images into training and held-out ones."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects

from components.train_detector.component import TrainDetector
from shared.artifacts.annotation import Annotation
from shared.artifacts.coco import CELL
from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LabelReader
from shared.data.boxes import Boxes
from shared.imaging.region_properties import mean_over_objects
from shared.instances.watershed import split_touching
from shared.system.errors import UserError
from shared.system.log import log

CELL_CLASS = CELL[0]["name"]
"""Class of the instances of a label image."""
MIN_CONFIDENCE = 0.5
"""Mean confidence, or score, below which an instance of a pseudo-mask is neither learned nor learned as background."""


@dataclass(frozen=True)
class LabelledImages:
    """Objects by image, with the division into training and held-out images."""

    classes: tuple[str, ...]
    """Names of the classes, in the order of the network's outputs."""
    objects: dict[str, list[Annotation]]
    """Key -> the image's objects; `iscrowd` marks regions that are ignored."""
    train: list[str]
    """Keys of the images that are learned from."""
    valid: list[str]
    """Keys of the images that choose weights and threshold: held out, or `train` where none can be."""
    origin: str
    """What the objects come from, in words."""

    @property
    def held_out(self) -> bool:
        """Whether `valid` is held out."""
        return self.valid != self.train

    def boxes(self, keys: Iterable[str]) -> dict[str, Boxes]:
        """Map keys to boxes in px."""
        return {key: as_boxes(self.objects[key], self.classes) for key in keys}

    def counts(self, keys: Iterable[str]) -> Counter[str]:
        """Number of objects of each class in some images."""
        return Counter(one.category for key in keys for one in self.objects[key] if not one.iscrowd)


class NothingToLearn(Exception):
    """There is no object to learn from; the message says why, and what to do."""


def labelled_images(stage: TrainDetector, reader: ImageReader) -> LabelledImages:
    """Read the objects of the images. Raises NothingToLearn where there are none in a training image."""
    origin, objects = _first_source(stage, reader)
    train = [key for key in reader.keys("train") if key in objects]
    valid = [key for key in reader.keys("val") if key in objects]
    if not any(_learnable(objects[key]) for key in valid):
        train, valid = _divide(reader, train, objects, stage.valid_share)
    found = LabelledImages(_classes(objects, train), objects, train, valid, origin)
    _report(found)
    return found


def _first_source(stage: TrainDetector, reader: ImageReader) -> tuple[str, dict[str, list[Annotation]]]:
    """The first source with an object in a training image: its origin in words, and the objects of the images."""
    for origin, every in _sources(stage, reader):
        objects = {key: found for key, found in every.items() if key in reader.entries}
        if any(_learnable(objects.get(key, [])) for key in reader.keys("train")):
            return origin, objects
    raise NothingToLearn(_missing(stage))


def _missing(stage: TrainDetector) -> str:
    """What is missing, and what to do."""
    if stage.labels == "boxes":
        return "--truth: no image of the split train has an object; annotate boxes, or set --labels pseudo"
    if stage.labels == "pseudo":
        return "--pseudo: no image of the split train has an instance; look at the page of the stage that made it"
    return (
        "--truth: no image of the split train has an object; annotate boxes (COCO or Pascal VOC), or give pseudo-masks "
        "as --pseudo"
    )


def unlabelled_images(
    stage: TrainDetector, reader: ImageReader, labelled: LabelledImages
) -> list[tuple[ImageReader, list[str]]]:
    """Images of split train without labels, of `images` and of `unlabelled`; equal images count once.

    None where `unlabelled` is not given, or has no weight.
    """
    if stage.unlabelled is None or not stage.unlabelled_weight:
        return []
    seen = {reader.entries[key].sha256 for key in labelled.objects}
    found = []
    for images in (reader, ImageReader(stage.unlabelled)):
        keys = [key for key in images.keys("train") if images.entries[key].sha256 not in seen]
        seen |= {images.entries[key].sha256 for key in keys}
        if keys:
            found.append((images, keys))
    log.info("%d training images without labels", sum(len(keys) for _, keys in found))
    return found


def _sources(stage: TrainDetector, reader: ImageReader) -> Iterator[tuple[str, dict[str, list[Annotation]]]]:
    """What can be learned from, best first: its origin in words, and the objects of the images."""
    if stage.labels != "pseudo":
        truth = LabelReader(stage.truth)
        yield "boxes", truth.annotations()
        if len(truth):
            yield "label images", _instances(truth, reader)
    if stage.labels == "pseudo" and stage.pseudo is None:
        raise UserError("--labels: pseudo needs the pseudo-masks; give --pseudo, or set --labels boxes")
    if stage.labels != "boxes" and stage.pseudo is not None:
        yield "pseudo-masks", _instances(LabelReader(stage.pseudo), reader)


def _instances(labels: LabelReader, reader: ImageReader) -> dict[str, list[Annotation]]:
    """Boxes of the instances in label images; a foreground mask is split first."""
    found = {}
    for key in sorted(labels.entries):
        if key in reader.entries:
            mask, entry = labels.mask(key), labels.entries[key]
            instances = mask if entry.kind == "instances" else split_touching((mask > 0).astype(np.uint8))
            found[key] = instance_boxes(instances, _certainty(instances, labels, key))
    return found


def instance_boxes(instances: np.ndarray, certain: Sequence[bool] | np.ndarray) -> list[Annotation]:
    """Return the boxes of the instances of a label image (H, W); `certain`: (n,) bool, the others are to be ignored."""
    found = []
    for number, spans in enumerate(find_objects(instances.astype(np.int32))):
        if spans is not None:
            (y0, y1), (x0, x1) = ((span.start, span.stop) for span in spans)
            box, area = (float(x0), float(y0), float(x1 - x0), float(y1 - y0)), float((x1 - x0) * (y1 - y0))
            found.append(Annotation(CELL_CLASS, box, area, iscrowd=int(not certain[number])))
    return found


def _certainty(instances: np.ndarray, labels: LabelReader, key: str) -> np.ndarray:
    """Whether each instance 1..n is certain enough to be learned: (n,) bool."""
    entry = labels.entries[key]
    if entry.scores is not None and entry.kind == "instances":
        return np.asarray(entry.scores) >= MIN_CONFIDENCE
    if "conf" in entry.members:
        return mean_over_objects(instances, labels.conf(key)) >= MIN_CONFIDENCE * 255
    return np.ones(int(instances.max(initial=0)), bool)


def as_boxes(found: list[Annotation], classes: tuple[str, ...]) -> Boxes:
    """Convert the objects of an image to arrays; objects of other classes than `classes` are left out."""
    learned = [one for one in found if not one.iscrowd and one.category in classes]
    corners, ignored = (
        np.array([(x, y, x + width, y + height) for x, y, width, height in (one.bbox for one in chosen)], np.float32)
        for chosen in (learned, [one for one in found if one.iscrowd])
    )
    names = np.array([classes.index(one.category) for one in learned], np.int64)
    return Boxes(corners.reshape(-1, 4), names, ignored.reshape(-1, 4))


def _divide(
    reader: ImageReader, keys: list[str], objects: dict[str, list[Annotation]], share: float
) -> tuple[list[str], list[str]]:
    """Hold out about `share` of the groups, chosen by a hash of their names; images without a group are one each.

    Groups with objects and those without are divided alike, so that both parts have objects.
    """
    group = {key: reader.entries[key].group or key for key in keys}
    full = {group[key] for key in keys if _learnable(objects[key])}
    if len(full) < 2:
        log.warning("--images: one group alone has objects: no image is held out, and the training images are scored")
        return keys, keys
    held_out: set[str] = set()
    for names in (full, set(group.values()) - full):
        order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        held_out |= set(order[: min(len(order) - 1, max(1, round(share * len(order))))] if order else [])
    valid = [key for key in keys if group[key] in held_out]
    log.info("the split val has no objects: %d of %d images are held out, by group", len(valid), len(keys))
    return [key for key in keys if group[key] not in held_out], valid


def _classes(objects: dict[str, list[Annotation]], train: list[str]) -> tuple[str, ...]:
    return tuple(sorted({one.category for key in train for one in objects[key] if not one.iscrowd}))


def _learnable(found: list[Annotation]) -> bool:
    return any(not one.iscrowd for one in found)


def _report(found: LabelledImages) -> None:
    """Warn of classes that a split lacks."""
    counts = found.counts(found.train), found.counts(found.valid)
    log.info("%d training images with %s, %d scored", len(found.train), dict(counts[0]), len(found.valid))
    for name in sorted(counts[0] | counts[1]):
        if not counts[0][name]:
            log.warning("class %r: no object in the training images; it is not learned, and counts as missed", name)
        elif not counts[1][name]:
            log.warning("class %r: no object in the images that are scored; it is learned, but not scored", name)
