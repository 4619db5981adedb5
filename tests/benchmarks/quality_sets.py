"""The sets of real images that `quality.py` measures on, and which of their files are scored."""

import hashlib
import shutil
from pathlib import Path

SETS = {
    "usiigaci": ("usiigaci/labelled", "usiigaci/unlabelled"),
    "fluo": ("dsb2018/fluo",),
    "tissue": ("dsb2018/histo_purple", "dsb2018/histo_light"),
    "cytology": ("dsb2018/gray_bright",),
    "mixed": ("dsb2018/fluo", "dsb2018/histo_purple", "dsb2018/histo_light", "dsb2018/gray_bright"),
}
WHEEL_SETS = {
    name: (name,)
    for name in ("trpl", "hela", "hela_lapse", "hela_sizes", "mnfinder", "nuclei", "usiigaci_half", "usiigaci_quarter")
}
"""Sets that `wheel_sets.py` writes; measured where `--sets` names them."""
BOX_SETS = {"bccd": ("bccd/train", "bccd/val")}
"""Sets with boxes as truth; measured where `--sets` names them."""
KINDS = {"fluo": "fluo", "histo_purple": "tissue", "histo_light": "tissue", "gray_bright": "cytology"}
"""Folder of the mixed set -> the set that its images are compared with."""
HELD_OUT = 4
"""Number of tenths of the files that are scored."""


def prepare(data: Path, name: str, target: Path) -> Path:
    """Link the files of a set, labels included, into `target`/train and `target`/test; a single image into both."""
    shutil.rmtree(target, ignore_errors=True)
    for folder in (SETS | WHEEL_SETS | BOX_SETS)[name]:
        files = sorted((data / folder).iterdir())
        single = len({_stem(path) for path in files}) == 1
        for path in files:
            split = "train" if folder.endswith("unlabelled") or not (single or held_out(_stem(path))) else "test"
            _link(path, target / split / Path(folder).name)
            if single and not path.stem.endswith("_masks"):
                _link(path, target / "train" / Path(folder).name)
    return target


def _stem(path: Path) -> str:
    """What the names of an image and its labels have in common."""
    return path.stem.removesuffix("_masks").removesuffix("_img")


def _link(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / path.name).symlink_to(path.resolve())


def held_out(stem: str) -> bool:
    """Whether the file of this name is scored and not trained on."""
    return int(hashlib.sha256(stem.encode()).hexdigest(), 16) % 10 < HELD_OUT
