"""Write `classes.csv`: the class of each image, its probabilities, the outcome and the reason."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from shared.artifacts.annotation import PROBABILITY_COLUMN
from shared.artifacts.image_set import ImageEntry
from shared.exporters.exporter import Content, PredictedImage
from shared.system.names import cells

_FIRST, _LAST = ("image", "source", "class"), ("outcome", "reason", "distance")


class ClassesCsv:
    """A row for each classified image; a column `p_CLASS` for each class, in the classifier's order."""

    needs: ClassVar[frozenset[Content]] = frozenset(["class"])

    def __init__(self, folder: Path, entries: Sequence[ImageEntry]) -> None:
        self._stream = (folder / "classes.csv").open("w", encoding="utf-8", newline="")
        self._writer: Any = None

    def prepare(self, item: PredictedImage) -> dict[str, Any]:
        """Return the row of one image; empty where it has no class."""
        known = item.image_class
        if known is None:
            return {}
        return {
            "image": item.entry.key,
            "source": item.entry.source,
            "class": known.name,
            **{f"{PROBABILITY_COLUMN}{name}": f"{value:.7g}" for name, value in known.probabilities.items()},
            "outcome": known.outcome or "",
            "reason": known.reason,
            "distance": "" if known.distance is None else f"{known.distance:.7g}",
        }

    def append(self, prepared: dict[str, Any]) -> None:
        """Write the row; the first one's columns make the header."""
        if prepared:
            self._table(list(prepared)).writerow(cells(prepared))

    def _table(self, columns: list[str]) -> Any:
        if self._writer is None:
            self._writer = csv.DictWriter(self._stream, columns, restval="", lineterminator="\n")
            self._writer.writeheader()
        return self._writer

    def __enter__(self) -> "ClassesCsv":
        return self

    def __exit__(self, *_: object) -> None:
        self._table([*_FIRST, *_LAST])
        self._stream.close()
