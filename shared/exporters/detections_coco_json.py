"""Write `detections.coco.json`: all boxes as COCO annotations with classes and scores, which pycocotools loads."""

from typing import Any, ClassVar

from shared.exporters.coco_json import CocoFile, Rows, coco_image
from shared.exporters.exporter import Content, PredictedImage


class DetectionsCocoJson(CocoFile):
    """Boxes; their categories are numbered from 1 as they are first met."""

    needs: ClassVar[frozenset[Content]] = frozenset(["boxes"])
    file, description = "detections.coco.json", "boxes found by Cytoloom"

    def prepare(self, item: PredictedImage) -> Rows | None:
        """Make the annotations of one image; their category is still a name."""
        if item.boxes is None:
            return None
        rows = [
            {
                "image_id": item.number,
                "category_id": box.category,
                "bbox": [round(float(value), 2) for value in box.bbox],
                "area": round(float(box.area), 2),
                "iscrowd": 0,
                "score": round(float(box.score or 0.0), 4),
            }
            for box in item.boxes
        ]
        return coco_image(item), rows

    def append(self, prepared: Rows | None) -> None:
        """Write annotations with the numbers of their categories."""
        if prepared is None:
            return
        image, rows = prepared
        for row in rows:
            self._numbers.setdefault(row["category_id"], len(self._numbers) + 1)
        super().append((image, [row | {"category_id": self._numbers[row["category_id"]]} for row in rows]))

    def categories(self) -> list[dict[str, Any]]:
        """Return the classes that were met."""
        return [{"id": number, "name": name} for name, number in self._numbers.items()]

    @property
    def _numbers(self) -> dict[str, int]:
        """Class -> number of the category."""
        return self.__dict__.setdefault("_category_numbers", {})
