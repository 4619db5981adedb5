"""Open the models that are given, and apply them to a batch of images: the gate first, the others where it opens."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.infer.component import Infer
from components.infer.gate import Gate
from components.infer.image_batches import ImageInWork, reason
from components.infer.instance_predictor import InstancePredictor
from shared.exporters.exporter import Content
from shared.models.class_predictor import ClassPredictor
from shared.models.config import ClassifierConfig, DetectorConfig, SegmentorConfig
from shared.models.files import is_absent, load_config
from shared.models.runtimes.runtime import OpenModel, open_model
from shared.stage.execution.places import naming
from shared.system.devices import device
from shared.system.log import log

_CONFIGS: dict[str, type] = {"classifier": ClassifierConfig, "detector": DetectorConfig, "segmentor": SegmentorConfig}
_CONTENTS: dict[str, Content] = {"classifier": "class", "detector": "boxes", "segmentor": "instances"}
"""Kind of model -> what it finds in an image."""


def present_models(stage: Infer) -> dict[str, Path]:
    """Return the models that are given and not absent: kind -> folder."""
    given = {kind: getattr(stage, kind) for kind in _CONFIGS}
    return {kind: folder for kind, folder in given.items() if folder is not None and not is_absent(folder)}


class Models:
    """The models, opened."""

    def __init__(self, stage: Infer, folders: dict[str, Path]) -> None:
        """Raises ArtifactError that names the input where a model is of another kind, or cannot be opened."""
        self.stage, where = stage, device()
        opened = {kind: _open(kind, folder, stage, where) for kind, folder in folders.items()}
        self.runtimes = {kind: model.runtime for kind, model in opened.items()}
        self.contents: list[Content] = [_CONTENTS[kind] for kind in opened]
        """What the predictions hold."""
        self.classifier = Classification.of(opened["classifier"], stage) if "classifier" in opened else None
        self.detector: Any = None
        if "detector" in opened:
            from components.infer.box_detection import BoxDetection  # transformers takes 5 s to import

            self.detector = BoxDetection(stage, opened["detector"])
        self.segmentor = InstancePredictor(stage, opened["segmentor"]) if "segmentor" in opened else None

    def predict(self, batch: list[ImageInWork]) -> Iterator[ImageInWork]:
        """Yield the images in their order with what the models find. A failure of one does not touch the others."""
        if self.classifier is not None:
            self.classifier.classify([item for item in batch if not item.failure])
        self._segment_small([item for item in batch if self._is_searched(item)])
        for item in batch:
            if self._is_searched(item):
                try:
                    self._search(item)
                except Exception as error:  # listed; where every image fails, the stage does
                    log.debug("%s", item.entry.source, exc_info=True)
                    item.failure = f"cannot be predicted: {reason(error)}"
            yield item

    def _is_searched(self, item: ImageInWork) -> bool:
        """Say whether detector and segmentor see the image."""
        if item.failure or item.image_class is None:
            return not item.failure
        outcome = item.image_class.outcome
        return outcome == "positive" or (outcome == "abstain" and self.stage.on_abstain == "continue")

    def _search(self, item: ImageInWork) -> None:
        if self.detector is not None:
            item.boxes, item.full_tiles = self.detector.boxes(item.image, item.entry.um_per_px)
        if self.segmentor is not None and item.maps is None:
            item.maps = self.segmentor.maps(item.image, item.entry)

    def _segment_small(self, items: list[ImageInWork]) -> None:
        """Segment images of equal size together, if each is a single tile; thousands of crops need no pass each."""
        if self.segmentor is None:
            return
        sizes = defaultdict(list)
        for item in items:
            if self.segmentor.is_one_tile(item.entry):
                sizes[item.image.shape].append(item)
        for alike in sizes.values():
            try:
                found = self.segmentor.predictor.predict_small([item.image for item in alike])
            except Exception:  # `_search` tries each alone, and finds which it is
                log.debug("%d images together", len(alike), exc_info=True)
                continue
            for item, maps in zip(alike, found, strict=True):
                item.maps = maps


@dataclass
class Classification:
    """A classifier and its gate."""

    predictor: ClassPredictor
    gate: Gate

    @classmethod
    def of(cls, model: OpenModel, stage: Infer) -> "Classification":
        """Set the thresholds."""
        assert isinstance(model.config, ClassifierConfig)
        predictor = ClassPredictor(model.network, model.config, stage.image_batch)
        return cls(predictor, Gate.of(model.config, stage))

    def classify(self, items: list[ImageInWork]) -> None:
        """Give each image its class and outcome, or a failure."""
        if not items:
            return
        try:
            found = self.predictor([item.image for item in items])
        except Exception as error:
            if len(items) == 1:
                items[0].failure = f"cannot be classified: {reason(error)}"
                return
            log.debug("%d images together", len(items), exc_info=True)
            for item in items:
                self.classify([item])
            return
        for item, answer in zip(items, self.gate(found.probability, found.distance), strict=True):
            if isinstance(answer, str):
                item.failure = answer
            else:
                item.image_class = answer


def _open(kind: str, folder: Path, stage: Infer, where: str) -> OpenModel:
    with naming(kind):
        load_config(folder, _CONFIGS[kind])  # which refuses another kind
        return open_model(folder, runtime=stage.runtime, device=where)
