"""Find the image of each annotation file (COCO JSON, Pascal VOC XML) by its name."""

from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

from shared.artifacts.keys import printable
from shared.readers.classes.image_lookup import ImageLookup
from shared.readers.file_names import stem_of
from shared.readers.labels import coco, voc
from shared.readers.reading_bounds import text_bounds
from shared.readers.source_image import SourceImage
from shared.system.errors import ImageError
from shared.system.processes.isolation import isolated


class AnnotationPairing:
    """Attach annotation files to images, and count what is found."""

    def __init__(self, images: list[SourceImage]) -> None:
        self.found: Counter[str] = Counter()
        """Kind of annotation file -> number of images."""
        self.problems: list[tuple[str, str]] = []
        """(file, reason) of annotations that belong to no image."""
        self.ignored: Counter[str] = Counter()
        """Suffix -> number of files that are not annotations."""
        self._lookup = ImageLookup(images)
        self._by_stem: dict[str, list[SourceImage]] = defaultdict(list)
        for image in images:
            self._by_stem[stem_of(image.relative)].append(image)

    def add_coco(self, path: Path, relative: PurePosixPath) -> list[tuple[SourceImage, str]]:
        """Attach the annotations of a COCO file to its images; ignore any other JSON. Returns the images' classes."""
        try:
            file = isolated(text_bounds(path), coco.read_coco, path)
        except ImageError as error:
            self.problems.append((printable(relative), f"label: {error}"))
            return []
        if file is None:
            self.ignored["json"] += 1
            return []
        self.problems += [(printable(relative), f"label: {problem}") for problem in file.problems]
        classes = []
        for entry in file.images:
            match, problem = self._lookup.find(entry.file_name, relative)
            if match is not None and match.coco is not None and entry.has_objects:
                match, problem = None, "is annotated twice"
            if match is None:
                self.problems.append((printable(relative), f"label: the image {entry.file_name!r} {problem}"))
                continue
            classes += [(match, name) for name in entry.classes]
            if entry.has_objects:
                match.coco = entry
                self.found["COCO json"] += 1
        return classes

    def add_voc(self, path: Path, relative: PurePosixPath) -> None:
        """Attach a Pascal VOC file to the image of its name in the same folder, else to the only one of its name."""
        same = self._by_stem[stem_of(relative)]
        beside = [image for image in same if image.relative.parent == relative.parent]
        match = beside or (same if len(same) == 1 else [])
        if not _is_voc(path):
            if match:
                self.problems.append((printable(relative), "label: not a readable Pascal VOC annotation"))
            self.ignored["xml"] += 1
        elif not match:
            self.problems.append((printable(relative), "label: a Pascal VOC annotation whose image is missing"))
        else:
            match[0].voc_path = path
            self.found["Pascal VOC xml"] += 1


def _is_voc(path: Path) -> bool:
    try:
        return isolated(text_bounds(path), voc.is_voc, path)
    except ImageError:
        return False
