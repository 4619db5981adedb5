"""LabelSet: what is known or believed about the images of one ImageSet, under the same keys.

A label image is (height, width); 0 is background. Instances are 1, 2, ...; in a foreground mask 1 is cell.
Confidence is uint8: 0 = ignore, 255 = certain. A foreground mask m with confidence c also stands for the
foreground probability 0.5 + (m - 0.5) * c / 255, which is how soft masks pass between stages.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.artifacts.kinds import LabelSet
from shared.artifacts.manifest import read_manifest
from shared.artifacts.shards import Member, ShardWriter, read_jsonl, read_member, write_jsonl
from shared.system.errors import ArtifactError

Box = tuple[float, float, float, float]
INDEX, INFO, COCO, CLASSES = "index.jsonl", "labelset.json", "annotations.coco.json", "classes.csv"


BORDER_REFINEMENT = "border_refinement"
"""Note of a pseudo LabelSet: how its masks' borders were moved to where the image changes, see `shared.instances.border_refinement`."""
LABELLED = "labelled"
"""Note of a pseudo LabelSet: keys of the images whose masks are a person's, taken over where `use_labels` allows it."""


Origin = Literal["truth", "corrected", "pseudo", "prediction"]
"""Where labels come from: a person, a person who corrected predictions, the EM loop, or a model."""
Kind = Literal["instances", "foreground"]
"""What a label image holds: numbered instances, or a mask of the foreground."""


class LabelInfo(BaseModel):
    """`labelset.json`: what holds for the whole set."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    origin: Origin
    notes: dict[str, Any] = {}
    """What the stage that made it wants to hand on: the chosen foreground clusters, a threshold, ..."""


class LabelEntry(BaseModel):
    """One line of `index.jsonl`: the labels of one image, drawn as pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str
    """Key of the image in its ImageSet."""
    kind: Kind
    height: int
    width: int
    members: dict[str, Member]
    """`mask` always; `conf` and others, such as `cluster` (the cluster of each pixel plus 1), where there are any."""
    scores: tuple[float, ...] | None = None
    """Of predictions, the score of each instance 1, 2, ... in [0, 1]; None where there are none."""


class LabelWriter:
    """Writes the payload of a LabelSet. Keys must be added in ascending order."""

    def __init__(self, folder: Path, origin: Origin, notes: dict[str, Any] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.origin, self.notes = folder, origin, notes or {}
        self.entries: list[LabelEntry] = []
        self.coco: dict[str, Any] | None = None
        """COCO dict (`images` with `file_name` = key), for boxes, classes per instance, and overlap."""
        self.classes: dict[str, str] = {}
        """Key -> class of the image."""
        self._shards = ShardWriter(folder, "labels")

    def __enter__(self) -> "LabelWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._shards.close()
        if kind is not None:
            return
        write_jsonl(self.folder / INDEX, self.entries)
        info = LabelInfo(origin=self.origin, notes=self.notes).model_dump(mode="json")
        (self.folder / INFO).write_text(json.dumps(info, sort_keys=True, indent=1) + "\n")
        if self.coco is not None:
            (self.folder / COCO).write_text(json.dumps(self.coco, sort_keys=True) + "\n")
        if self.classes:
            rows = "".join(f"{key},{self.classes[key]}\n" for key in sorted(self.classes))
            (self.folder / CLASSES).write_text("key,class\n" + rows)

    def add(
        self,
        key: str,
        mask: np.ndarray,
        kind: Kind,
        conf: np.ndarray | None = None,
        others: Mapping[str, np.ndarray] | None = None,
        scores: Sequence[float] | np.ndarray | None = None,
    ) -> LabelEntry:
        """Append the label images of one image.

        mask: (H, W) uint8, uint16 or uint32 (stored as the smallest that fits); conf and others: (H, W) uint8; scores:
        of the instances 1, 2, ... in [0, 1].
        """
        if self.entries and key <= self.entries[-1].key:
            raise ValueError(f"key {key!r} after {self.entries[-1].key!r}: keys must be added in ascending order")
        planes = {"mask": mask, **({"conf": conf} if conf is not None else {}), **(others or {})}
        members = {}
        for name in sorted(planes):
            if planes[name].shape != mask.shape:
                raise ValueError(f"{key}: {name} is {planes[name].shape}, the mask {mask.shape}")
            extension, data = encode_labels(planes[name])
            members[name] = self._shards.add(f"{key}.{name}.{extension}", data)
        entry = LabelEntry(
            key=key,
            kind=kind,
            height=mask.shape[0],
            width=mask.shape[1],
            members=members,
            scores=None if scores is None else tuple(round(float(score), 4) for score in scores),
        )
        self.entries.append(entry)
        return entry


class LabelReader:
    """Random access to a LabelSet whose contents were checked before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.skipped = read_manifest(folder, LabelSet).skipped
        self.entries = {entry.key: entry for entry in read_jsonl(folder / INDEX, LabelEntry)}
        try:
            self.info = LabelInfo.model_validate_json((folder / INFO).read_text())
        except (OSError, ValidationError) as error:
            raise ArtifactError(f"{folder / INFO}: cannot be read; make the artifact again") from error

    def __len__(self) -> int:
        return len(self.entries)

    def keys(self) -> list[str]:
        """Keys with label images, in ascending order."""
        return sorted(self.entries)

    def mask(self, key: str) -> np.ndarray:
        """(H, W) label image, uint8, uint16 or uint32."""
        return self.plane(key, "mask")

    def conf(self, key: str) -> np.ndarray:
        """(H, W) uint8 confidence; 255 everywhere where none was stored."""
        entry = self.entries[key]
        if "conf" not in entry.members:
            return np.full((entry.height, entry.width), 255, np.uint8)
        return self.plane(key, "conf")

    def probability(self, key: str) -> np.ndarray:
        """(H, W) float32 in [0, 1]: the foreground probability that mask and confidence stand for."""
        sign = (self.mask(key) > 0).astype(np.float32) - 0.5
        return 0.5 + sign * (self.conf(key).astype(np.float32) / 255)

    def plane(self, key: str, name: str) -> np.ndarray:
        """(H, W) label image of one member, such as `cluster`. Raises KeyError where there is none."""
        return decode_labels(read_member(self.folder, self.entries[key].members[name]))

    def coco(self) -> dict[str, Any]:
        """`annotations.coco.json`: boxes, outlines and categories; without images where there is none."""
        path = self.folder / COCO
        return json.loads(path.read_text()) if path.is_file() else {"images": [], "annotations": [], "categories": []}

    def boxes(self) -> dict[str, list[Box]]:
        """Key -> boxes (x, y, width, height) in px, of the images with annotations; an image may have none."""
        coco = self.coco()
        keys = {image["id"]: image["file_name"] for image in coco["images"]}
        found: dict[str, list[Box]] = {key: [] for key in keys.values()}
        for row in coco["annotations"]:
            found[keys[row["image_id"]]].append(tuple(row["bbox"]))
        return found

    def classes(self) -> dict[str, str]:
        """Key -> class of the image; empty where none are known."""
        path = self.folder / CLASSES
        if not path.is_file():
            return {}
        return dict(line.rsplit(",", 1) for line in path.read_text().splitlines()[1:])

    def contents(self) -> str:
        """What the set holds, in words: `label images of 5 images, classes of 3 images`, or `nothing`."""
        counts = {"label images": len(self), "annotations": len(self.boxes()), "classes": len(self.classes())}
        return ", ".join(f"{what} of {number} images" for what, number in counts.items() if number) or "nothing"


def learned_labels(truth: LabelReader, train: Collection[str], use_labels: int) -> list[str]:
    """Keys of the images whose labels the loop learns from: the first `use_labels` labelled ones of the keys `train`.

    Every stage that looks at labels asks here, so that what one learns from is known to those that judge and score.
    """
    return [key for key in sorted(truth.entries) if key in train][:use_labels]


def soft_mask(probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Foreground probability (H, W) float in [0, 1] -> mask uint8 {0, 1} and confidence uint8, as one stores it."""
    mask = (probability >= 0.5).astype(np.uint8)
    conf = np.rint(np.abs(probability - 0.5) * 510).clip(0, 255).astype(np.uint8)
    return mask, conf


def encode_labels(labels: np.ndarray) -> tuple[str, bytes]:
    """Lossless bytes of a label image: PNG up to uint16, else zlib-compressed TIFF. Returns extension and bytes."""
    if labels.ndim != 2 or labels.dtype.kind not in "ub":
        raise ValueError(f"a label image is (height, width) of unsigned integers, not {labels.dtype} {labels.shape}")
    top = int(labels.max(initial=0))
    if top < 2**16:
        return "png", bytes(
            imagecodecs.png_encode(np.ascontiguousarray(labels, np.uint8 if top < 256 else np.uint16), 1)
        )
    data = imagecodecs.tiff_encode(np.ascontiguousarray(labels, np.uint32), compression=8)  # Adobe deflate
    return "tif", bytes(data)


def decode_labels(data: bytes) -> np.ndarray:
    """The label image that `encode_labels` made bytes of."""
    return imagecodecs.png_decode(data) if data[:4] == b"\x89PNG" else imagecodecs.tiff_decode(data)
