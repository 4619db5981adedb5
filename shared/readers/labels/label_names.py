"""What the names of files and folders say about label images, and about the image that each belongs to.

Some names are those of label images wherever they stand: `NAME_masks`, or a folder `labels`. Others are so only where
the image that they would belong to is there: `NAME_seg`, `mask_NAME`, `NAME-labelled` (QuPath), `mask.png` beside
`image.png`, `train_masks/NAME` beside `train_images/NAME`, `annotations/NAME` beside `images/NAME`, `labelsTr/NAME`
beside `imagesTr/NAME_0000` (nnU-Net), `SegmentationObject/NAME` beside `JPEGImages/NAME` (Pascal VOC),
`01_GT/SEG/man_seg000` beside `01/t000` (Cell Tracking Challenge). Further files belong to an image and are no label
image that can be learned from: `NAME_flows`, `NAME_outlines`, `01_GT/TRA/man_track000`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from shared.readers.file_names import normal, stem_of

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
"""Names of folders that hold images, in lower case."""
MASK_FOLDERS = ("labels", "label", "masks", "mask", "ground_truth", "groundtruth", "gt")
"""Names of folders that hold label images, in lower case."""
Place = tuple[PurePosixPath, str]
"""Folder in lower case, and stem, of an image."""
_FLAGS = re.IGNORECASE | re.DOTALL
_LABEL_STEM = re.compile(
    r"(?P<base>.+?)[_-](?:cp_)?(?P<ending>masks?|labels?)(?P<better>[_-](?:corrected|refined|edited|final|manual))?",
    _FLAGS,
)
_OBJECT_STEM = re.compile(r"(?P<base>.+?)[ ._-](?:cp_)?(?:masks?|labels?)[ _-]?(?P<number>\d+)", _FLAGS)
_IMAGE_ENDINGS = ("", "_img", "_image", "-img", "-image")
_USABLE = "labell?ed|seg|segmentation|segmented|gt|ground_?truth|instances?|annotations?|simple segmentation|"
_USABLE += "object identities|objects|lbl|binary|bw|labelids|instanceids|"
_USABLE += r"(?:cp_)?(?:masks?|labels?)(?:[ _-]?(?:corrected|refined|edited|final|manual|\d+))?"
_OTHER = "flows|(?:cp_)?outlines?|probabilities|uncertainty|dp|cp_output|cellprob"
_ENDING = re.compile(rf"(?P<base>.+?)[ ._-](?P<ending>(?P<usable>{_USABLE})|{_OTHER})", _FLAGS)
_CAPITAL_ENDING = re.compile(r"(?P<base>.*?[a-z0-9])(?:Masks?|Labels?)", re.DOTALL)
_BEGINNING = re.compile(r"(?:masks?|labels?|seg|gt)[ ._-](?P<base>.+)", _FLAGS)
_NUMBERED = re.compile(r"(?:masks?|labels?|seg|gt)(?P<number>\d+)", _FLAGS)
_BARE_LABELS = {"mask", "masks", "label", "labels", "gt", "seg", "segmentation", "annotation", "instances"}
"""Whole names of label images, beside an image of one of the names below, or of the name of their folder."""
_BARE_IMAGES = ("image", "images", "img", "imgs", "raw", "im", "input")
_SUFFIX = re.compile(r"\.(?:ome|tiff?|png|jpe?g|bmp)$", _FLAGS)
_FOLDER_WORDS = "masks?|labels?|gt|ground_?truth|seg|segmentations?|annotations?"
_SIBLINGS = {
    **dict.fromkeys(("annotations", "annotation", "segmentations", "segmentation", "segmentationmasks"), IMAGE_FOLDERS),
    **dict.fromkeys(("lbls", "lbl", "anns", "seg", "gts", "instances"), IMAGE_FOLDERS),
    **dict.fromkeys(("targets", "target"), ("input", "inputs", *IMAGE_FOLDERS)),
    "ann_dir": ("img_dir", *IMAGE_FOLDERS),
    "labelstr": ("imagestr",),
    "labelsts": ("imagests",),
}
"""Folder of label images in lower case -> sibling folders that may hold their images."""
_FOLDER_END = re.compile(rf"(?P<rest>.+?)(?P<between>[ _-])(?:{_FOLDER_WORDS})", _FLAGS)
_FOLDER_BEGIN = re.compile(rf"(?:{_FOLDER_WORDS})(?P<between>[ _-])(?P<rest>.+)", _FLAGS)
_VOC_FOLDERS = {"segmentationobject": 0, "segmentationclass": 2}
"""Folder of Pascal VOC in lower case -> rank."""
_TRACKING_FOLDER = re.compile(r"(?P<movie>\d+)_(?P<kind>GT|ST|RES|AUTO)", _FLAGS)
_TRACKING_FILE = re.compile(r"(?P<kind>man_seg|man_track|mask)(?P<frame>\d+)", _FLAGS)
_TRACKING_SECTION = re.compile(r"(?P<kind>man_seg_)(?P<frame>\d+)_\d+", _FLAGS)


@dataclass(frozen=True)
class Relation:
    """What a file is to an image by its name, where there is such an image."""

    places: tuple[Place, ...]
    """Where that image may be, the most likely place first."""
    is_label: bool = True
    """Whether the file is a label image; else it is something else that is no image."""
    rank: int = 1
    """Priority among several label images of one image; the lowest is used."""


def is_label(path: PurePosixPath) -> bool:
    """Whether a file is named like a label image wherever it stands."""
    return mask_folder(path) is not None or _LABEL_STEM.fullmatch(stem_of(path)) is not None


def lower(folder: PurePosixPath) -> PurePosixPath:
    """Return a folder in lower case and NFC."""
    return PurePosixPath(str(normal(folder)).lower())


def mask_folder(path: PurePosixPath) -> int | None:
    """Position of the last folder whose name is in `MASK_FOLDERS`."""
    parts = [part.lower() for part in path.parent.parts]
    return max((i for i, part in enumerate(parts) if part in MASK_FOLDERS), default=None)


def base_of(path: PurePosixPath) -> str:
    """Return the stem without what says that it is a label image."""
    match = _LABEL_STEM.fullmatch(stem_of(path))
    return match["base"] if match else stem_of(path)


def rank(label: PurePosixPath) -> int:
    """Priority among label images of one image: corrected ones, masks, mask, labels, label, others, binary ones.

    In a folder of label images, a name that says no more comes first.
    """
    stem = stem_of(label)
    if match := _LABEL_STEM.fullmatch(stem):
        return -2 if match["better"] else ["masks", "mask", "labels", "label"].index(match["ending"].lower())
    if match := _ENDING.fullmatch(stem):
        return 5 if _is_binary(match) else 4
    return -1


def object_base(path: PurePosixPath) -> tuple[PurePosixPath, int] | None:
    """Path of the label image that a mask of one object is a part of, and its number: `a_mask_2` of `a_mask`."""
    match = _OBJECT_STEM.fullmatch(stem_of(path))
    return (path.with_name(f"{match['base']}_mask{path.suffix}"), int(match["number"])) if match else None


def is_other(stem: str) -> bool:
    """Whether a stem is that of what belongs to an image and is no label image, such as `NAME_outlines`."""
    match = _ENDING.fullmatch(stem)
    return match is not None and match["usable"] is None


def _is_binary(match: re.Match[str]) -> bool:
    """Whether an `_ENDING` says that objects are not told apart."""
    return (match["usable"] or "").lower() in ("binary", "bw")


def places_of(label: PurePosixPath) -> list[Place]:
    """Places of images that a label image may belong to, the most likely first."""
    folder, at = lower(label.parent), mask_folder(label)
    folders = []
    if at is not None:
        before, after = folder.parts[:at], folder.parts[at + 1 :]
        folders = [PurePosixPath(*before, name, *after) for name in IMAGE_FOLDERS] + [PurePosixPath(*before, *after)]
    folders.append(folder)
    others = _bases(stem_of(label)) if at is not None else []
    stems = dict.fromkeys([*_with_endings(base_of(label)), stem_of(label), *others])
    return [(place, stem) for place in folders for stem in stems]


def pair_name(image: PurePosixPath, label: PurePosixPath) -> str:
    """Describe the naming rule of a pair: `NAME_img.png with NAME_masks.png`."""
    match = _LABEL_STEM.fullmatch(stem_of(label)) or _ENDING.fullmatch(stem_of(label))
    base = match["base"] if match else stem_of(label)
    end = stem_of(label)[len(base) :]
    if image.parent != label.parent:
        at = mask_folder(label)
        name = label.parent.parts[at] if at is not None else label.parent.name
        return f"images with {name}/NAME{end}{label.suffix}"
    if begins := _BEGINNING.fullmatch(base):
        start = base[: -len(begins["base"])]
        return f"NAME{image.suffix} with {start}NAME{label.suffix}"
    return f"NAME{stem_of(image)[len(base) :]}{image.suffix} with NAME{end}{label.suffix}"


def relations_of(path: PurePosixPath) -> Iterator[Relation]:
    """Yield what a file may be to an image by its name: as in published data sets first, then in general."""
    folder, stem = lower(path.parent), stem_of(path)
    if found := _of_tracking(folder, stem):
        yield found
    if folder.name in _VOC_FOLDERS:
        beside = (folder.parent / "jpegimages", folder.parent / "images")
        yield Relation(tuple((place, stem) for place in beside), rank=_VOC_FOLDERS[folder.name])
    yield from _of_folders(folder, stem)
    if match := _ENDING.fullmatch(stem):
        places = tuple((folder, base) for base in _with_endings(match["base"]))
        yield Relation(places, is_label=match["usable"] is not None, rank=3 if _is_binary(match) else 1)
    if match := _BEGINNING.fullmatch(stem):
        yield Relation(tuple((folder, base) for base in _with_endings(match["base"])))
    if match := _CAPITAL_ENDING.fullmatch(stem):
        yield Relation(tuple((folder, base) for base in _with_endings(match["base"])))
    if match := _NUMBERED.fullmatch(stem):
        words = ("img", "image", "im", "img_", "image_", "")
        yield Relation(tuple((folder, word + match["number"]) for word in words))
    if stem.lower() in _BARE_LABELS:
        yield Relation(tuple((folder, name) for name in (*_BARE_IMAGES, folder.name)))


def _of_folders(folder: PurePosixPath, stem: str) -> Iterator[Relation]:
    """Files of a folder of label images beside one of images: `annotations/train/a` belongs to `images/train/a`."""
    for at, part in enumerate(folder.parts):
        named = list(_SIBLINGS.get(part, ()))
        if match := _FOLDER_END.fullmatch(part):
            named += [*(f"{match['rest']}{match['between']}{word}" for word in IMAGE_FOLDERS), match["rest"]]
        if match := _FOLDER_BEGIN.fullmatch(part):
            named += [*(f"{word}{match['between']}{match['rest']}" for word in IMAGE_FOLDERS), match["rest"]]
        places = [PurePosixPath(*folder.parts[:at], name, *folder.parts[at + 1 :]) for name in named]
        stems = [*_bases(stem), f"{stem}_0000"]
        if places:
            yield Relation(tuple((place, base) for place in places for base in stems), is_label=not is_other(stem))


def _of_tracking(folder: PurePosixPath, stem: str) -> Relation | None:
    """Files of the Cell Tracking Challenge: `01_GT/SEG/man_seg000` and `01_RES/mask000` belong to `01/t000`."""
    file = _TRACKING_FILE.fullmatch(stem) or _TRACKING_SECTION.fullmatch(stem)
    named = folder.parent if folder.name in ("seg", "tra") else folder
    movie = _TRACKING_FOLDER.fullmatch(named.name)
    if not file or not movie:
        return None
    is_label = file["kind"].lower() == "man_seg"  # a section of a volume is none of an image
    place = named.parent / movie["movie"], f"t{file['frame']}"
    return Relation((place,), is_label, rank=0 if movie["kind"].lower() == "gt" else 2)


def _bases(stem: str) -> list[str]:
    """Stems of the image of a file in a folder of label images: the same, or without what says so once more."""
    patterns = (_LABEL_STEM, _ENDING, _BEGINNING)
    found = [match["base"] for pattern in patterns if (match := pattern.fullmatch(stem))]
    return [name for base in (stem, *found) for name in _with_endings(base)]


def _with_endings(base: str) -> list[str]:
    """Stems of images of a name, which may hold the suffix of an image: `a.tif_mask`, `a.ome_cp_masks`."""
    names = dict.fromkeys([base, _SUFFIX.sub("", base)])
    return [name + ending for name in names for ending in _IMAGE_ENDINGS]
