"""Find the image of each annotation file (COCO JSON, Pascal VOC XML) by its name."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from shared.artifacts.keys import printable
from shared.readers.classes.image_lookup import ImageLookup
from shared.readers.file_names import stem_of
from shared.readers.folder_names import contradicts
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
        self.remarks: list[tuple[str, str]] = []
        """(file, remark) on what a name was taken for."""
        self._lookup = ImageLookup(images)
        self._by_stem: dict[str, list[SourceImage]] = defaultdict(list)
        for image in images:
            self._by_stem[stem_of(image.relative)].append(image)

    def add_coco(self, files: Sequence[tuple[PurePosixPath, Path]]) -> list[tuple[SourceImage, str, PurePosixPath]]:
        """Attach the annotations of COCO files to their images; ignore any other JSON.

        Images that a file names by their exact path come first. Returns the images' classes, with the file.
        """
        entries = []
        for relative, path in files:
            for entry in self._read_coco(path, relative):
                entries.append((not self._lookup.is_exact(entry.file_name, relative), entry, relative))
        classes = []
        for _, entry, relative in sorted(entries, key=lambda item: item[0]):
            match, problem = self._lookup.find(entry.file_name, relative)
            if match is not None and match.coco is not None and entry.has_objects:
                if not entry.rows or not match.coco.rows:  # one of the files only lists the image
                    match.coco = entry if entry.rows else match.coco
                    continue
                match, problem = None, "is annotated twice"
            if match is None:
                self.problems.append((printable(relative), f"label: the image {entry.file_name!r} {problem}"))
                continue
            classes += [(match, name, relative) for name in entry.classes]
            if entry.has_objects:
                match.coco = entry
                self.found["COCO json"] += 1
        return classes

    def _read_coco(self, path: Path, relative: PurePosixPath) -> list[coco.CocoImage]:
        try:
            file = isolated(text_bounds(path), coco.read_coco, path)
        except ImageError as error:
            self.problems.append((printable(relative), f"label: {error}"))
            return []
        if file is None:
            self.ignored["json"] += 1
            return []
        self.problems += [(printable(relative), f"label: {problem}") for problem in file.problems]
        return file.images

    def add_voc(self, files: Sequence[tuple[PurePosixPath, Path]]) -> None:
        """Attach Pascal VOC files to their images, the nearest first."""
        for relative, path in sorted(files, key=lambda item: -self._nearness(item[0])):
            self._add_voc(path, relative)

    def _add_voc(self, path: Path, relative: PurePosixPath) -> None:
        """Attach a Pascal VOC file to the image of its name that is nearest, and of no other folder or split."""
        match = self._nearest(relative)
        if not _is_voc(path):
            if match:
                self.problems.append((printable(relative), "label: not a readable Pascal VOC annotation"))
            self.ignored["xml"] += 1
            return
        problem = ""
        if not match:
            problem = "whose image is missing"
        elif len({image.relative.parent for image in match}) > 1:
            problem = f"of one of several images: {', '.join(printable(image.relative) for image in match[:3])}"
        elif match[0].voc_path is not None:
            problem = f"that is not used: {printable(match[0].relative)} has another one"
        if problem:
            self.problems.append((printable(relative), f"label: a Pascal VOC annotation {problem}"))
            return
        match[0].voc_path = path
        self.found["Pascal VOC xml"] += 1
        if len(match) > 1:
            others = ", ".join(printable(image.relative) for image in match[1:])
            remark = f"the annotation of {printable(match[0].relative)}, not of {others}, which has the same name"
            self.remarks.append((printable(relative), remark))

    def _nearness(self, relative: PurePosixPath) -> int:
        return max((_shared_folders(relative, image.relative) for image in self._nearest(relative)), default=0)

    def _nearest(self, relative: PurePosixPath) -> list[SourceImage]:
        """The images of this name that share most folders with the file, without those of another folder or split."""
        same = [one for one in self._by_stem[stem_of(relative)] if not contradicts(relative, one.relative)]
        shared = [_shared_folders(relative, image.relative) for image in same]
        return [image for image, count in zip(same, shared, strict=True) if count == max(shared)]


def _shared_folders(one: PurePosixPath, other: PurePosixPath) -> int:
    """Number of folders that two paths begin with alike."""
    alike = [a == b for a, b in zip(one.parent.parts, other.parent.parts, strict=False)]
    return (alike.index(False) if False in alike else len(alike)) + (one.parent == other.parent)


def _is_voc(path: Path) -> bool:
    try:
        return isolated(text_bounds(path), voc.is_voc, path)
    except ImageError:
        return False
