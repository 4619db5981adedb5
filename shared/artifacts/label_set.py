"""LabelSet: what is known or predicted about the images of one ImageSet, under the same keys.

A LabelSet holds any of: label images, annotations (boxes, outlines, categories; objects may overlap) and classes of
whole images. A label image is (height, width); 0 is background. Instances are 1, 2, ...; in a foreground mask 1 is
cell. Confidence is uint8: 0 = ignore, 255 = certain. A foreground mask m with confidence c also stands for the
foreground probability 0.5 + (m - 0.5) * c / 255: stages pass probabilities in this form.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from shared.artifacts.annotation import (
    Annotation,
    BoundingBox,
    ImageClass,
    annotations_by_key,
    read_image_classes,
    write_image_classes,
)
from shared.artifacts.coco import AnnotationWriter
from shared.artifacts.image_codec import decode_labels, encode_labels, extension_of
from shared.artifacts.image_set import MAX_MAGNIFICATION
from shared.artifacts.keys import Key
from shared.artifacts.kinds import LabelSet
from shared.artifacts.manifest import read_manifest
from shared.artifacts.payload import CLASSES_FILE, COCO_FILE, INDEX, unreadable
from shared.artifacts.shards import Member, ShardWriter, check_ascending, jsonl_line, read_jsonl, read_member
from shared.imaging.resize import enlarge_labels

INFO_FILE = "labelset.json"

NOTE_HAND_LABELLED = "labelled"
"""Keys of the images whose masks are hand-labelled, used where `use_labels` allows it."""
NOTE_PROPOSALS = "proposals"
"""Name of each classical proposal -> number of images that it serves."""
NOTE_FOREGROUND_CLUSTERS = "foreground_clusters"
"""Numbers of the clusters that are foreground."""
NOTE_CLUSTER_WEIGHT = "cluster_weight"
"""Weight of the clusters relative to the proposals."""
NOTE_EDGE_SCORE = "edge_score"
"""Median edge score of the proposals' borders, see `shared.imaging.gradients.edge_score`."""
NOTE_WATERSHED = "watershed"
"""Whether the borders were found by watershed of the image gradient."""
NOTE_BORDER_REFINEMENT = "border_refinement"
"""How the borders were moved to where the image changes, see `shared.instances.borders.border_refinement`."""

NOTE_FAILED = "failed"
"""Of predictions: keys of the images that could not be predicted."""

Origin = Literal["truth", "corrected", "pseudo", "prediction"]
"""Source of labels: a person, a person who corrected predictions, the EM loop, or a model."""
LabelKind = Literal["instances", "foreground"]
"""Content of a label image: numbered instances, or a mask of the foreground."""


class LabelInfo(BaseModel):
    """`labelset.json`: what holds for the whole set."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    origin: Origin
    notes: dict[str, Any] = {}
    """Values that the stage passes on with its labels: the chosen foreground clusters, a threshold, ..."""


class LabelEntry(BaseModel):
    """One line of `index.jsonl`: the label images of one image."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: Key
    """Key of the image in its ImageSet."""
    kind: LabelKind
    height: PositiveInt
    """px"""
    width: PositiveInt
    """px"""
    members: dict[str, Member]
    """`mask`, and optional planes: `conf`, `cluster` (cluster of each pixel plus 1), ..."""
    scores: tuple[float, ...] | None = None
    """Of a prediction: the score of each instance 1, 2, ... in [0, 1]; else None."""
    magnification: int = Field(default=1, ge=1, le=MAX_MAGNIFICATION)
    """Factor by which the stored planes are enlarged when they are read. Height and width hold after it."""

    def enlarged(self, factor: int) -> "LabelEntry":
        """Describe the label images, which are not enlarged, as they are after it."""
        sizes = {"height": self.height * factor, "width": self.width * factor}
        return self.model_copy(update={**sizes, "magnification": factor})


@dataclass(frozen=True)
class LabelContents:
    """Number of images with each kind of label; as text: `label images of 5 images, classes of 3 images`."""

    label_images: int
    annotations: int
    """Images whose objects are annotated; an image known to hold none counts."""
    classes: int

    def __str__(self) -> str:
        counts = {"label images": self.label_images, "annotations": self.annotations, "classes": self.classes}
        return ", ".join(f"{kind} of {_images(count)}" for kind, count in counts.items() if count) or "no labels"

    def __bool__(self) -> bool:
        return bool(self.label_images or self.annotations or self.classes)


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


class LabelWriter:
    """Write the payload of a LabelSet. Each method takes its keys in ascending order; an image may lack any kind.

    >>> with LabelWriter(folder, "prediction") as writer:
    ...     writer.add("a", labels, "instances", scores=scores)
    ...     writer.annotate("a", (height, width), [Annotation("cell", (x, y, w, h), w * h, score=0.9)])
    ...     writer.classify("a", ImageClass("positive", 0.8, {"negative": 0.2, "positive": 0.8}))
    """

    def __init__(self, folder: Path, origin: Origin, notes: dict[str, Any] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.origin, self.notes = folder, origin, notes or {}
        self._index = (folder / INDEX).open("w", encoding="utf-8")
        self._last_key: str | None = None
        self._annotations = AnnotationWriter(folder)
        self._classes: dict[str, ImageClass] = {}
        self._shards = ShardWriter(folder, "labels")

    def __enter__(self) -> "LabelWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._shards.close()
        self._index.close()
        with contextlib.closing(self._annotations):
            if kind is None:
                self._write_tables()
            else:
                (self.folder / INDEX).unlink()

    def _write_tables(self) -> None:
        info = LabelInfo(origin=self.origin, notes=self.notes).model_dump(mode="json")
        (self.folder / INFO_FILE).write_text(json.dumps(info, sort_keys=True, indent=1) + "\n")
        if self._annotations.last_key is not None:
            self._annotations.write(self.folder / COCO_FILE)
        if self._classes:
            write_image_classes(self.folder / CLASSES_FILE, self._classes)

    def annotate(self, key: str, size: tuple[int, int], annotations: list[Annotation]) -> None:
        """Append the objects of one image of (height, width) px; an empty list states that it holds none."""
        check_ascending(key, self._annotations.last_key)
        self._annotations.add(key, size, annotations)

    def classify(self, key: str, name: str | ImageClass, score: float | None = None) -> None:
        """Append the class of one image, by its name, or with all that is known of a prediction.

        score: probability of the class named, in [0, 1].
        """
        check_ascending(key, next(reversed(self._classes), None))
        self._classes[key] = ImageClass(name, score) if isinstance(name, str) else name

    def add(
        self,
        key: str,
        mask: np.ndarray,
        kind: LabelKind,
        conf: np.ndarray | None = None,
        others: Mapping[str, np.ndarray] | None = None,
        scores: Sequence[float] | np.ndarray | None = None,
    ) -> LabelEntry:
        """Append the label images of one image.

        mask: (H, W) uint8, uint16 or uint32 (stored in the smallest dtype that fits); conf and others: (H, W) uint8;
        scores: of the instances 1, 2, ... in [0, 1].
        """
        check_ascending(key, self._last_key)
        planes = {"mask": mask, **({"conf": conf} if conf is not None else {}), **(others or {})}
        members = {}
        for name in sorted(planes):
            if planes[name].shape != mask.shape:
                raise ValueError(f"{key}: {name} is {planes[name].shape}, the mask {mask.shape}")
            extension, data = encode_labels(planes[name])
            members[name] = self._shards.add(f"{key}.{name}.{extension}", data)
        rounded = None if scores is None else tuple(round(float(score), 4) for score in scores)
        height, width = mask.shape
        entry = LabelEntry(key=key, kind=kind, height=height, width=width, members=members, scores=rounded)
        return self._append(entry)

    def copy(self, reader: "LabelReader", key: str) -> LabelEntry:
        """Append the label images of one image from another set, byte for byte."""
        check_ascending(key, self._last_key)
        entry, members = reader.entries[key], {}
        for name, member in sorted(entry.members.items()):
            data = read_member(reader.folder, member)
            members[name] = self._shards.add(f"{key}.{name}.{extension_of(data)}", data)
        return self._append(entry.model_copy(update={"members": members}))

    def _append(self, entry: LabelEntry) -> LabelEntry:
        self._index.write(jsonl_line(entry))
        self._last_key = entry.key
        return entry


class LabelReader:
    """Random access to a LabelSet whose contents were verified before."""

    def __init__(self, folder: Path, *, sealed: bool = True) -> None:
        """Read the index. sealed: False for a payload that this process wrote and that has no manifest yet."""
        self.folder = folder
        self.skipped = read_manifest(folder, LabelSet).skipped if sealed else None
        self.entries = {entry.key: entry for entry in read_jsonl(folder / INDEX, LabelEntry)}
        with unreadable(folder / INFO_FILE):
            self.info = LabelInfo.model_validate_json((folder / INFO_FILE).read_bytes())

    def __len__(self) -> int:
        """Number of images with label images."""
        return len(self.entries)

    def contents(self) -> LabelContents:
        """Count the images with each kind of label. False, or `no labels` as text, where the set is empty."""
        return LabelContents(len(self), len(self.annotations()), len(self.classes()))

    def keys(self) -> list[str]:
        """Keys of the images with label images, ascending."""
        return sorted(self.entries)

    def mask(self, key: str) -> np.ndarray:
        """Read the label image (H, W), uint8, uint16 or uint32."""
        return self.plane(key, "mask")

    def conf(self, key: str) -> np.ndarray:
        """Read the confidence (H, W) uint8; 255 everywhere where none is stored."""
        entry = self.entries[key]
        if "conf" not in entry.members:
            return np.full((entry.height, entry.width), 255, np.uint8)
        return self.plane(key, "conf")

    def probability(self, key: str) -> np.ndarray:
        """Return the foreground probability (H, W) float32 in [0, 1] that mask and confidence stand for."""
        sign = (self.mask(key) > 0).astype(np.float32) - 0.5
        return 0.5 + sign * (self.conf(key).astype(np.float32) / 255)

    def plane(self, key: str, name: str) -> np.ndarray:
        """Read one plane (H, W) of an image, such as `cluster`. Raises KeyError where there is none."""
        entry = self.entries[key]
        member, factor = entry.members[name], entry.magnification
        with unreadable(self.folder / member.shard):
            labels = decode_labels(read_member(self.folder, member), (entry.height // factor, entry.width // factor))
        return enlarge_labels(labels, factor)

    def coco(self) -> dict[str, Any]:
        """Read the COCO file of the set; it lists no images where there are no annotations."""
        path = self.folder / COCO_FILE
        if not path.is_file():
            return {"images": [], "annotations": [], "categories": []}
        with unreadable(path):
            return dict(json.loads(path.read_text(encoding="utf-8")))

    def annotations(self) -> dict[str, list[Annotation]]:
        """Map the keys of the annotated images to their objects, which an image may have none of."""
        with unreadable(self.folder / COCO_FILE):
            return annotations_by_key(self.coco())

    def boxes(self) -> dict[str, list[BoundingBox]]:
        """Map the keys of the annotated images to boxes (x, y, width, height) in px."""
        return {key: [item.bbox for item in found] for key, found in self.annotations().items()}

    def image_classes(self) -> dict[str, ImageClass]:
        """Map keys to the class of the image and what else is known of it; empty where no classes are known."""
        path = self.folder / CLASSES_FILE
        if not path.is_file():
            return {}
        with unreadable(path):
            return read_image_classes(path)

    def classes(self) -> dict[str, str]:
        """Map keys to the name of the image's class."""
        return {key: item.name for key, item in self.image_classes().items()}

    def class_scores(self) -> dict[str, float]:
        """Map keys to the score in [0, 1] of the image's class; empty unless the classes are predictions."""
        return {key: item.score for key, item in self.image_classes().items() if item.score is not None}


def soft_mask(probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Convert a foreground probability (H, W) float in [0, 1] to mask uint8 {0, 1} and confidence uint8."""
    mask = (probability >= 0.5).astype(np.uint8)
    conf = np.rint(np.abs(probability - 0.5) * 510).clip(0, 255).astype(np.uint8)
    return mask, conf
