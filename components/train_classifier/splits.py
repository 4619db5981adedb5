"""Choose which labelled images are learned from, which stop and calibrate the training, and which are scored."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from components.train_classifier.component import TrainClassifier
from shared.artifacts.image_set import ImageReader
from shared.system.errors import UserError
from shared.system.log import log

VAL_SHARE = 0.2
"""Share of the training images that becomes the split val where there is none."""


@dataclass(frozen=True)
class LabelledKeys:
    """Keys of the images of each role, ascending, and the class of each image."""

    classes: tuple[str, ...]
    """Names of the classes, in alphabetical order."""
    index: dict[str, int]
    """Key -> number of its class, of every labelled image."""
    train: list[str]
    val: list[str]
    """Both of the next two."""
    selection: list[str]
    """Images of val by which training is stopped, and to which the temperature is fitted."""
    calibration: list[str]
    """Images of val whose scores and distances are stored."""
    test: list[str]

    def labels(self, keys: list[str]) -> np.ndarray:
        """Classes (n,) int64 of these images."""
        return np.array([self.index[key] for key in keys], np.int64)

    def counts(self, keys: list[str]) -> np.ndarray:
        """Images (K,) of each class."""
        return np.bincount(self.labels(keys), minlength=len(self.classes))

    @property
    def can_select(self) -> bool:
        """Whether val has images of all classes, without which it can neither stop nor scale a training."""
        return bool((self.counts(self.selection) > 0).all())

    @property
    def shown(self) -> str:
        """The split that examples and the confusion matrix are of: test, or val, or else train."""
        return next(name for name in ("test", "val", "train") if getattr(self, name))

    def scored(self) -> dict[str, list[str]]:
        """Split -> keys, of the splits that are scored and not empty."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: keys for name, keys in splits.items() if keys}


def nothing_to_learn(reader: ImageReader, classes: dict[str, str]) -> str:
    """Say why no classifier can be learned from these images and classes (key -> name); empty where one can."""
    known = Counter(name for key, name in classes.items() if key in reader.entries)
    if not classes:
        return "no classes of images are known"
    if not known:
        return f"none of the {len(classes)} images with a class is among --images"
    if len(known) == 1:
        return f"all {known.total()} labelled images are {next(iter(known))!r}; a classifier needs two classes or more"
    return ""


def choose_images(stage: TrainClassifier, reader: ImageReader, classes: dict[str, str]) -> LabelledKeys:
    """Divide the labelled images; classes: key -> name of the class. Raises UserError where a role stays empty."""
    known = {key: name for key, name in sorted(classes.items()) if key in reader.entries}
    if missing := len(classes) - len(known):
        log.warning("%d images with a class are not among --images; they are ignored", missing)
    names = tuple(sorted(set(known.values())))
    index = {key: names.index(name) for key, name in known.items()}
    by_split = {split: [key for key in reader.keys(split) if key in index] for split in ("train", "val", "test")}
    train, val = by_split["train"], by_split["val"]
    _check_classes(train, index, names)
    if not val:
        train, val = _make_val(train, index, names, reader, stage.seed)
    if stage.max_labels != "all":
        train = _limit(train, index, len(names), stage.max_labels, stage.seed)
    selection, calibration = _divide(val, index, reader, 0.5, stage.seed)
    if val and not (_all_classes(selection, index, names) and _all_classes(calibration, index, names)):
        log.warning("val is too small for two halves with all classes; all of it stops and calibrates the training")
        selection = calibration = val
        if not _all_classes(val, index, names):
            log.warning("val lacks a class: training is not stopped by it, and the temperature stays 1")
    return LabelledKeys(names, index, train, val, selection, calibration, by_split["test"])


def _make_val(
    train: list[str], index: dict[str, int], names: tuple[str, ...], reader: ImageReader, seed: int
) -> tuple[list[str], list[str]]:
    """Divide the training images into train and val; val stays empty where it would lack a class."""
    rest, val = _divide(train, index, reader, VAL_SHARE, seed)
    if not _all_classes(val, index, names):
        log.warning(
            "no split val, and too few images or groups of a class to make one: all are learned from, none stops or "
            "calibrates the training; `infer` answers with target_error=none alone"
        )
        return train, []
    log.info("no split val: %d training images take its place, by group", len(val))
    return rest, val


def _check_classes(train: list[str], index: dict[str, int], names: tuple[str, ...]) -> None:
    """Raise UserError where the training images lack a class, or are too few."""
    if not train:
        raise UserError("--truth: none of the labelled images is in the split train; ingest them with a folder `train`")
    counts = Counter(index[key] for key in train)
    for number, name in enumerate(names):
        if not counts[number]:
            raise UserError(
                f"--truth: no image of the class {name!r} is in the split train; move some of them there, or remove "
                "the class from the other splits"
            )


def _all_classes(keys: list[str], index: dict[str, int], names: tuple[str, ...]) -> bool:
    return len({index[key] for key in keys}) == len(names)


def _divide(
    keys: list[str], index: dict[str, int], reader: ImageReader, share: float, seed: int
) -> tuple[list[str], list[str]]:
    """Divide images in two, the second of about this share of each class; images of one group stay together.

    Groups are taken in order of their size, a random one of equals first, to where they bring the shares of the
    classes nearer to those wanted; the first of a class to the first part. Images are divided one by one where all are
    of one group.
    """
    if not keys:
        return [], []
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(reader.entries[key].group or key, []).append(key)
    if len(groups) == 1 < len(keys):
        log.warning("%d images are of one group; they are divided one by one, see --group_pattern of ingest", len(keys))
        groups = {key: [key] for key in keys}
    classes = 1 + max(index[key] for key in keys)
    count = {name: np.bincount([index[key] for key in members], minlength=classes) for name, members in groups.items()}
    total = sum(count.values())
    order = np.random.default_rng([seed, len(keys)]).permutation(sorted(groups)).tolist()
    taken: dict[bool, list[str]] = {False: [], True: []}
    have = {False: np.zeros(classes), True: np.zeros(classes)}
    wanted = {False: np.maximum((1 - share) * total, 1e-9), True: np.maximum(share * total, 1e-9)}
    for name in sorted(order, key=lambda name: -len(groups[name])):
        own = count[name] > 0
        filled = {side: float((have[side][own] / wanted[side][own]).max()) for side in taken}
        side = bool((have[False][own] > 0).all()) and filled[True] < filled[False]
        taken[side] += groups[name]
        have[side] += count[name]
    return sorted(taken[False]), sorted(taken[True])


def _limit(keys: list[str], index: dict[str, int], classes: int, limit: int, seed: int) -> list[str]:
    """Choose at most `limit` keys at random, each class by its share, but at least one of each."""
    if limit >= len(keys):
        return keys
    if limit < classes:
        raise UserError(f"--max_labels: {limit} are fewer than the {classes} classes; give at least one for each")
    rng = np.random.default_rng([seed, limit])
    members = [[key for key in keys if index[key] == number] for number in range(classes)]
    exact = np.array([limit * len(own) / len(keys) for own in members])
    wanted = np.maximum(1, np.floor(exact)).astype(int)
    while wanted.sum() > limit:
        wanted[int(np.argmax(wanted))] -= 1
    for number in np.argsort(wanted - exact)[: limit - wanted.sum()]:
        wanted[number] += 1
    chosen = [rng.permutation(own)[:count] for own, count in zip(members, wanted, strict=True)]
    return sorted(str(key) for part in chosen for key in part)
