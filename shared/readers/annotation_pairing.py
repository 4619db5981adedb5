"""Find the image of each annotation file (COCO JSON, Pascal VOC XML) by its name."""

from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

from shared.artifacts.keys import printable
from shared.readers import coco, voc
from shared.readers.source_image import SourceImage


class AnnotationPairing:
    """Attach annotation files to images, and count what is found."""

    def __init__(self, images: list[SourceImage]) -> None:
        self.found: Counter[str] = Counter()
        """Kind of annotation file -> number of images."""
        self.problems: list[tuple[str, str]] = []
        """(file, reason) of annotations that belong to no image."""
        self.ignored: Counter[str] = Counter()
        """Suffix -> number of files that are not annotations."""
        self._by_path = {image.relative: image for image in images}
        self._by_name: dict[str, list[SourceImage]] = defaultdict(list)
        self._by_stem: dict[str, list[SourceImage]] = defaultdict(list)
        for image in images:
            self._by_name[image.relative.name].append(image)
            self._by_stem[image.relative.stem].append(image)

    def add_coco(self, path: Path, relative: PurePosixPath) -> None:
        """Attach the annotations of a COCO file to its images; ignore any other JSON."""
        annotated = coco.read_coco(path)
        if annotated is None:
            self.ignored["json"] += 1
            return
        for entry in annotated:
            name = PurePosixPath(entry.file_name.replace("\\", "/"))
            match = self._exact(relative, name)
            candidates = self._by_name[name.name]
            if match is None and len(candidates) == 1:
                match = candidates[0]
            if match is None or match.coco is not None:
                problem = "is annotated twice" if match else "is ambiguous: several files have its name"
                problem = problem if candidates else "is missing"
                self.problems.append((printable(relative), f"label: the image {entry.file_name!r} {problem}"))
                continue
            match.coco = entry
            self.found["COCO json"] += 1

    def _exact(self, relative: PurePosixPath, name: PurePosixPath) -> SourceImage | None:
        """Image at the path `name`, relative to the folder of the annotation file or to one above it."""
        paths = (folder / name for folder in relative.parents)
        return next((self._by_path[path] for path in paths if path in self._by_path), None)

    def add_voc(self, path: Path, relative: PurePosixPath) -> None:
        """Attach a Pascal VOC file to the image of its name in the same folder, else to the only one of its name."""
        same = self._by_stem[relative.stem]
        beside = [image for image in same if image.relative.parent == relative.parent]
        match = beside or (same if len(same) == 1 else [])
        if not voc.is_voc(path):
            if match:
                self.problems.append((printable(relative), "label: not a readable Pascal VOC annotation"))
            self.ignored["xml"] += 1
        elif not match:
            self.problems.append((printable(relative), "label: a Pascal VOC annotation whose image is missing"))
        else:
            match[0].voc_path = path
            self.found["Pascal VOC xml"] += 1
