"""Find the image that a file names, however it writes the path.

A name with other folders than the image's is not taken for it: `train/000.png` is not `val/000.png`. Folders that only
say `images`, and those of another computer, do not count.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from shared.artifacts.keys import key_of
from shared.readers.file_names import normal, stem_of
from shared.readers.folder_names import contradicts
from shared.readers.source_image import SourceImage


class ImageLookup:
    """The images of a source, by path, name, stem and key."""

    def __init__(self, images: Sequence[SourceImage]) -> None:
        self._by_path = {normal(image.relative): image for image in images}
        self._by_part: dict[str, list[SourceImage]] = defaultdict(list)
        for image in images:
            relative = normal(image.relative)
            parts = {relative.name, relative.stem, stem_of(relative), relative.with_suffix("").as_posix()}
            for part in parts | {key_of(image.relative), relative.as_posix()}:
                self._by_part[part].append(image)

    def find(self, text: str, beside: PurePosixPath) -> tuple[SourceImage | None, str]:
        """Find the image that `text` names: a path with or without its folders and its suffix, or a key.

        beside: the file that names it; paths are relative to its folder or to one above. Returns the image, or None and
        what the problem is.
        """
        name, beside = normal(PurePosixPath(text.strip().replace("\\", "/"))), normal(beside)
        for folder in beside.parents:
            if (image := self._by_path.get(folder / name)) is not None:
                return image, ""
        refused = ""
        is_elsewhere = name.is_absolute() or ":" in name.parts[0] or ".." in name.parts
        stated = PurePosixPath(name.name) if is_elsewhere else name
        for part in self._parts(name, beside):
            all_of_name = self._by_part.get(part, [])
            candidates = [one for one in all_of_name if not contradicts(stated, normal(one.relative), beside)]
            if len(candidates) == 1:
                return candidates[0], ""
            if candidates:
                return None, "is ambiguous: several files have its name"
            refused = refused or next((one.relative.as_posix() for one in all_of_name), "")
        return None, f"is missing ({refused} is of another folder or split)" if refused else "is missing"

    def is_exact(self, text: str, beside: PurePosixPath) -> bool:
        """Whether `text` is the path of an image, relative to the folder of `beside` or to one above."""
        name, beside = normal(PurePosixPath(text.strip().replace("\\", "/"))), normal(beside)
        return any(folder / name in self._by_path for folder in beside.parents)

    def _parts(self, name: PurePosixPath, beside: PurePosixPath) -> list[str]:
        """What the name may be a part of, the most exact first."""
        beneath = [(folder / name).as_posix() for folder in beside.parents]
        tails = [
            "/".join(name.parts[i:]) for i in range(1, len(name.parts))
        ]  # absolute, or of a folder above the source
        return [*beneath, name.as_posix(), *tails, name.name]
