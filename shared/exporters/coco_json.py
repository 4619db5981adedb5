"""Write `coco.json`: all instances as COCO annotations with scores, which pycocotools loads."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.artifacts.coco import CELL, dataset, instance_annotations
from shared.artifacts.image_set import ImageEntry
from shared.exporters.exporter import PredictedImage


class CocoJson:
    """Stream annotations to the file, so that memory does not grow with the number of images."""

    def __init__(self, folder: Path, entries: Sequence[ImageEntry]) -> None:
        images = [
            {"id": number, "file_name": entry.source, "height": entry.height, "width": entry.width, "key": entry.key}
            for number, entry in enumerate(entries, 1)
        ]
        name = '"annotations":['
        opening, self._closing = _json(dataset(images, [], CELL, "cells found by Cytoloom")).split(name, 1)
        self._stream = (folder / "coco.json").open("w", encoding="utf-8")
        self._stream.write(opening + name)
        self._count = 0

    def prepare(self, item: PredictedImage) -> list[dict[str, Any]]:
        """Make the annotations of one image."""
        return instance_annotations(item.labels, item.number, scores=item.scores)

    def append(self, prepared: list[dict[str, Any]]) -> None:
        """Write annotations; ids count through all images, from 1."""
        for one in prepared:
            self._stream.write("," if self._count else "")
            self._count += 1
            self._stream.write(_json({**one, "id": self._count}))

    def __enter__(self) -> "CocoJson":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._stream:
            if kind is None:  # after an error the file stays invalid JSON, so that no program takes it for complete
                self._stream.write(self._closing + "\n")


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
