"""Decide what becomes of an image by its classifier: positive, negative, or abstain, and why."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from components.infer.component import Infer
from shared.artifacts.annotation import ImageClass, Outcome
from shared.metrics.conformal import class_thresholds, distance_limit, prediction_sets
from shared.models.config import ClassifierConfig
from shared.system.errors import UserError
from shared.system.suggestions import alternatives


@dataclass(frozen=True)
class Gate:
    """The thresholds of a classifier for a target error."""

    classes: tuple[str, ...]
    positive: frozenset[str]
    thresholds: np.ndarray | None
    """(K,) probability from which on each class is plausible; None: the most probable class is the answer."""
    max_distance: float
    """From the training images; infinity: no limit."""
    note: str = ""
    """What a user should know of the thresholds."""

    @classmethod
    def of(cls, config: ClassifierConfig, stage: Infer) -> "Gate":
        """Set the thresholds as the stage says. Raises UserError where the classifier's calibration allows no such."""
        settings, classes = config.postprocessing, config.architecture.classes
        thresholds = None
        if stage.target_error != "none":
            if not settings.calibration:
                raise UserError(
                    "--classifier: not calibrated, so no target error can be kept; train it with train_classifier on "
                    "images with a split val, or set --target_error none"
                )
            thresholds = class_thresholds(settings.calibration, stage.target_error, classes)
        limit, note = np.inf, ""
        if stage.distance_quantile != "none":
            limit = distance_limit(settings.calibration_distances, stage.distance_quantile)
            if np.isinf(limit):
                note = (
                    f"The classifier has {len(settings.calibration_distances)} calibration images, too few for a limit "
                    "of the distance from the training images; lower distance_quantile to have one."
                )
        return cls(classes, positive_classes(classes, stage.positive), thresholds, limit, note)

    def __call__(self, probability: np.ndarray, distance: np.ndarray) -> Iterator[ImageClass | str]:
        """Yield the answer for each row of probabilities (n, K) and distances (n,), or what is wrong with the row."""
        for chances, far in zip(probability, distance, strict=True):
            if not (np.isfinite(chances).all() and np.isfinite(far)):
                yield "the classifier's output is not finite"
            else:
                yield self._answer(chances, float(far))

    def _answer(self, chances: np.ndarray, distance: float) -> ImageClass:
        best = int(chances.argmax())
        outcome, reason = self._outcome(chances, distance, best)
        named = {name: float(value) for name, value in zip(self.classes, chances, strict=True)}
        return ImageClass(self.classes[best], float(chances[best]), named, outcome, reason, distance)

    def _outcome(self, chances: np.ndarray, distance: float, best: int) -> tuple[Outcome, str]:
        """Outcome and reason; best: number of the most probable class, which is always in the prediction set."""
        name = self.classes[best]
        if distance > self.max_distance:
            return "abstain", f"unlike the training images: distance {distance:.3g}, limit {self.max_distance:.3g}"
        if self.thresholds is None:
            return self._side(best), f"{name} is the most probable class"
        plausible = np.flatnonzero(prediction_sets(chances[None], self.thresholds)).tolist()
        if len(plausible) > 1:
            return "abstain", f"several classes are plausible: {', '.join(self.classes[k] for k in plausible)}"
        known = "alone is plausible" if chances[best] >= self.thresholds[best] else "is the most probable class"
        return self._side(best), f"{name} {known}"

    def _side(self, number: int) -> Outcome:
        return "positive" if self.classes[number] in self.positive else "negative"


def positive_classes(classes: Collection[str], given: Collection[str]) -> frozenset[str]:
    """Return the classes that count as positive; given: by the user, empty where not.

    Raises UserError for one that the classifier does not know, or where every class would be positive.
    """
    if unknown := sorted(set(given) - set(classes)):
        raise UserError(f"--positive {unknown[0]}: no class of the classifier{alternatives(unknown[0], classes)}")
    if given and set(given) == set(classes):
        raise UserError("--positive: every class of the classifier; leave out those that count as negative")
    if given:
        return frozenset(given)
    if "positive" in classes:
        return frozenset(["positive"])
    negative = "negative" if "negative" in classes else next(iter(classes))
    return frozenset(classes) - {negative}
