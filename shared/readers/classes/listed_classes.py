"""Give images the classes that files list: tables of classes, and COCO files with categories of whole images."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shared.artifacts.keys import printable
from shared.readers.classes.class_table import ClassRow, ClassTable, read_class_table
from shared.readers.classes.image_lookup import ImageLookup
from shared.readers.folder_names import SPLITS
from shared.readers.reading_bounds import text_bounds
from shared.readers.source_image import SourceImage
from shared.system.errors import ImageError
from shared.system.names import visible
from shared.system.processes.isolation import isolated

_NAMES = {"classes", "class", "labels", "label", "imageclasses", "imagelabels", "classlabels", "groundtruth"}
"""Names of tables, without their suffix, in lower case and without punctuation."""
_OTHER_NAMES = {"annotations", "metadata", *SPLITS}
"""Names of tables that are ignored where they are no tables of classes."""


@dataclass(frozen=True)
class _Listed:
    """A class of an image, and the file that lists it."""

    name: str
    file: str


class ListedClasses:
    """Collect the classes that files list, then give each image its own."""

    def __init__(self, images: list[SourceImage]) -> None:
        self.found: Counter[str] = Counter()
        """Kind of file -> number of images."""
        self.problems: list[tuple[str, str]] = []
        """(file, reason) of what cannot be used."""
        self.ignored: Counter[str] = Counter()
        """Suffix -> number of files that are not tables of classes."""
        self._images, self._lookup = images, ImageLookup(images)
        self._listed: dict[PurePosixPath, list[_Listed]] = {}
        self._tables: list[PurePosixPath] = []

    def add_table(self, path: Path, relative: PurePosixPath) -> None:
        """Read a table where its name or its contents tell that it lists classes of images; ignore any other."""
        name = re.sub(r"[^a-z]", "", relative.stem.lower())
        if name not in _NAMES | _OTHER_NAMES:
            self.ignored[relative.suffix.lower().lstrip(".")] += 1
            return
        try:
            table = isolated(text_bounds(path), read_class_table, path)
        except (ImageError, OSError) as error:
            if name in _NAMES:
                self._problem(relative, str(error))
            self.ignored[relative.suffix.lower().lstrip(".")] += name not in _NAMES
            return
        self._tables.append(relative)
        split = SPLITS.get(name, "")
        for row in table.rows:
            self._add_row(row, relative, split, table)

    def _add_row(self, row: ClassRow, relative: PurePosixPath, split: str, table: ClassTable) -> None:
        image, problem = self._lookup.find(row.image, relative) if row.image else (None, "is not named")
        if image is None:
            if table.has_header or row.line > 1:
                self._problem(relative, f"line {row.line}: the image {row.image!r} {problem}")
            return
        if not row.class_name:
            self._problem(relative, f"line {row.line}: no class of {row.image!r}")
            return
        self.add(image, row.class_name, relative)
        if row.split and row.split.lower() not in SPLITS:
            self._problem(relative, f"line {row.line}: the split {row.split!r} is none of train, val and test")
        image.split = SPLITS.get(row.split.lower(), split) or image.split
        if row.group:
            image.group, image.group_in_name = row.group, True

    def add(self, image: SourceImage, name: str, relative: PurePosixPath) -> None:
        """Note that the file at `relative` gives an image a class."""
        self._listed.setdefault(image.relative, []).append(_Listed(visible(name.strip()), printable(relative)))

    def assign(self) -> None:
        """Set the class of each listed image; list images that are named with several classes, or with none."""
        for image in self._images:
            listed = self._listed.get(image.relative, [])
            if listed:
                self._assign(image, listed)
            elif table := self._table_above(image):
                self._problem(image.relative, f"no class in {printable(table)}")

    def _assign(self, image: SourceImage, listed: list[_Listed]) -> None:
        names = sorted({one.name for one in listed})
        if len(names) > 1:
            files = ", ".join(sorted({one.file for one in listed}))
            self._problem(image.relative, f"several classes ({', '.join(names)}) in {files}; none is used")
            image.class_name = None
            return
        if image.class_name not in (None, names[0]):
            text = f"its folder says {image.class_name}, {listed[0].file} says {names[0]}, which is used"
            self._problem(image.relative, text)
        image.class_name = names[0]
        self.found[f"classes in {PurePosixPath(listed[0].file).name}"] += 1

    def _table_above(self, image: SourceImage) -> PurePosixPath | None:
        """A table of classes in the folder of the image or in one above; None for an image with a class of a folder."""
        if image.class_name is not None:
            return None
        return next((table for table in self._tables if table.parent in image.relative.parents), None)

    def _problem(self, file: PurePosixPath, reason: str) -> None:
        self.problems.append((printable(file), f"label: {reason}"))
