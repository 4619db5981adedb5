"""Find the image of each annotation file (COCO JSON, Pascal VOC XML) by its name."""

from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

from shared.artifacts.keys import printable
from shared.readers.classes.image_lookup import ImageLookup
from shared.readers.file_names import stem_of
from shared.readers.folder_names import other_split
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
        """Attach a Pascal VOC file to the image of its name that is nearest, and in the same split."""
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

    def _nearest(self, relative: PurePosixPath) -> list[SourceImage]:
        """The images of this name that share most folders with the file, without those of another split."""
        same = [one for one in self._by_stem[stem_of(relative)] if not other_split(relative, one.relative)]
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
