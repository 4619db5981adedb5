"""Write `coco.json`: all instances as COCO annotations with scores, which pycocotools loads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from shared.artifacts.coco import CELL, dataset, instance_annotations
from shared.artifacts.image_set import ImageEntry
from shared.exporters.exporter import Content, PredictedImage

Rows = tuple[dict[str, Any], list[dict[str, Any]]]
"""An image, and its annotations without ids."""


class CocoFile:
    """Base of the COCO exporters. Streams annotations, so that memory does not grow with the number of objects.

    The file lists the images that were searched for objects, also those where none was found.
    """

    needs: ClassVar[frozenset[Content]]
    file: ClassVar[str]
    description: ClassVar[str]

    def __init__(self, folder: Path, entries: Sequence[ImageEntry]) -> None:
        self._stream = (folder / self.file).open("w", encoding="utf-8")
        self._stream.write('{"annotations":[')
        self._images: list[dict[str, Any]] = []
        self._count = 0

    def categories(self) -> list[dict[str, Any]]:
        """Return the categories, once all annotations are written."""
        return CELL

    def append(self, prepared: Rows | None) -> None:
        """Write annotations; ids count through all images, from 1."""
        if prepared is None:
            return
        image, rows = prepared
        self._images.append(image)
        for row in rows:
            self._stream.write("," if self._count else "")
            self._count += 1
            self._stream.write(_json({**row, "id": self._count}))

    def __enter__(self) -> "CocoFile":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._stream:
            if kind is None:  # after an error the file stays invalid JSON, so that no program takes it for complete
                rest = dataset(self._images, [], self.categories(), self.description)
                del rest["annotations"]
                self._stream.write("]," + _json(rest)[1:] + "\n")


class CocoJson(CocoFile):
    """Instances, all of the category `cell`, each with its label in the label image."""

    needs: ClassVar[frozenset[Content]] = frozenset(["instances"])
    file, description = "coco.json", "cells found by Cytoloom"

    def prepare(self, item: PredictedImage) -> Rows | None:
        """Make the annotations of one image."""
        if item.instances is None:
            return None
        found = item.instances
        return coco_image(item), instance_annotations(found.labels, item.number, scores=found.scores)


def coco_image(item: PredictedImage) -> dict[str, Any]:
    """Return the image as one entry of `images` in a COCO file."""
    entry = item.entry
    size = {"height": entry.height, "width": entry.width}
    return {"id": item.number, "file_name": entry.source, **size, "key": entry.key}


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
