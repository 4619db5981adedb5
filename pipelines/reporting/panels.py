"""Pictures of a run: how a few images went through it, from the input to the prediction, beside the truth."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.reporting.rounds import rounds
from pipelines.run_folder.folder import folder_within, within
from pipelines.run_folder.record import RunRecord
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LABELLED as LEARNED
from shared.artifacts.label_set import LabelReader
from shared.imaging.overlays import PREDICTION, TRUTH, colour_labels, outline, thumbnail, to_rgb8

LABELLED, UNLABELLED = 2, 3
"""How many images of either kind are shown."""
CROP, OVERVIEW = 320, 620
"""px on the longer side."""
PSEUDO = (60, 200, 255)
AGREE, ONLY_FOUND, ONLY_TRUE, IGNORED = (80, 200, 120), (255, 170, 0), (230, 60, 200), (255, 140, 60)
Picture = tuple[np.ndarray, str]


@dataclass
class Gallery:
    """One image: its whole, and a crop at each step."""

    key: str
    title: str
    overview: list[Picture] = field(default_factory=list)
    steps: list[list[Picture]] = field(default_factory=list)


class RunFiles:
    """The artifacts of a run that pictures are made of; those that do not stand are None."""

    def __init__(self, run: Path, record: RunRecord) -> None:
        self._run, self._record = run, record
        found = {task.stage: name for name, task in record.tasks.items() if task.state == "done"}
        images, truth = self._folder(found.get("ingest"), "images"), self._folder(found.get("ingest"), "labels")
        self.images = ImageReader(images) if images else None
        self.truth = LabelReader(truth) if truth else None
        self.predictions = self._folder(found.get("infer"), "predictions")
        self.clusters = self._per_round("cluster", "clusters")
        self.refined = self._per_round("refine_masks", "labels")

    def learned(self) -> set[str]:
        """Keys of the images whose labels the loop learned from."""
        return {key for reader in self.clusters.values() for key in reader.info.notes.get(LEARNED, [])}

    def _folder(self, task: str | None, output: str) -> Path | None:
        if task is None or output not in self._record.tasks[task].outputs:
            return None
        path = self._record.tasks[task].outputs[output].path
        folder = within(self._run, path) if output == "predictions" else folder_within(self._run, path)
        return folder if folder.is_dir() else None

    def _per_round(self, stage: str, output: str) -> dict[str, LabelReader]:
        readers = {}
        for em in rounds(self._record):
            task = em.tasks.get(stage)
            name = f"{em.name}/{stage.replace('_', '-')}"
            if task and task.state == "done" and not task.skipped and (folder := self._folder(name, output)):
                readers[em.name] = LabelReader(folder)
        return readers

    def prediction(self, key: str) -> np.ndarray | None:
        """(H, W) instances of `infer`, or None."""
        path = within(self._run, self.predictions / "labels" / f"{key}.tif") if self.predictions else None
        if path is None or not path.is_file():
            return None
        import tifffile

        return tifffile.imread(path, key=0)  # its own first page: an OME-TIFF may name other files to read from


def galleries(run: Path, record: RunRecord) -> list[Gallery]:
    """Labelled images first, if possible such as no label was used of, then some of the rest, spread over the set."""
    files = RunFiles(run, record)
    if files.images is None:
        return []
    labelled = [key for key in (files.truth.keys() if files.truth else []) if key in files.images.entries]
    fresh = [key for key in labelled if key not in files.learned()]
    others = [key for key in files.images.keys("train") if key not in labelled]
    chosen = evenly_spaced(fresh or labelled, LABELLED) + evenly_spaced(others, UNLABELLED)
    return [_gallery(files, key) for key in chosen]


def _gallery(files: RunFiles, key: str) -> Gallery:
    assert files.images is not None
    entry = files.images.entries[key]
    rgb = to_rgb8(files.images.read(key))
    found = files.prediction(key)
    truth = files.truth.mask(key) if files.truth and key in files.truth.entries else None
    if truth is not None and truth.shape != rgb.shape[:2]:
        truth = None
    drawn = ", drawn for it to learn from" if key in files.learned() else ""
    gallery = Gallery(key, f"{entry.source} ({entry.split}, {entry.width} × {entry.height} px{drawn})")
    width = 2 if max(rgb.shape[:2]) > OVERVIEW else 1
    gallery.overview.append((thumbnail(rgb, OVERVIEW), "input"))
    if found is not None:
        text = f"prediction: {len(np.unique(found[found > 0]))} cells"
        gallery.overview.append((thumbnail(outline(rgb, found, PREDICTION, width), OVERVIEW), text))
    if truth is not None:
        text = f"truth: {len(np.unique(truth[truth > 0]))} cells"
        gallery.overview.append((thumbnail(outline(rgb, truth, TRUTH, width), OVERVIEW), text))
    window = _window(found if found is not None else truth, rgb.shape[:2])
    gallery.steps = _steps(files, key, rgb, found, truth, window)
    return gallery


def _steps(
    files: RunFiles,
    key: str,
    rgb: np.ndarray,
    found: np.ndarray | None,
    truth: np.ndarray | None,
    window: tuple[slice, slice],
) -> list[list[Picture]]:
    """Rows of pictures of the crop: from input to result, then what was proposed and refined in each round."""
    crop = np.ascontiguousarray(rgb[window])
    first: list[Picture] = [(crop, f"input, from x {window[1].start}, y {window[0].start} px")]
    clustered = [name for name, reader in files.clusters.items() if _has(reader, key, "cluster")]
    for name in clustered if len(clustered) < 2 else (clustered[0], clustered[-1]):
        first.append((colour_labels(files.clusters[name].plane(key, "cluster")[window]), f"{name}: clusters"))
    if found is not None:
        first.append((outline(crop, found[window], PREDICTION), "prediction"))
    if truth is not None:
        first.append((outline(crop, truth[window], TRUTH), "truth"))
    if found is not None and truth is not None:
        first.append((agreement(crop, found[window], truth[window]), "green: both; orange: predicted; magenta: missed"))
    proposed = [
        (outline(crop, _foreground(reader, key, window), PSEUDO), f"{name}: proposed")
        for name, reader in files.clusters.items()
        if key in reader.entries
    ]
    refined = []
    for name, reader in files.refined.items():
        if key in reader.entries:
            drawn = outline(crop, _foreground(reader, key, window), PSEUDO)
            drawn = _tint(drawn, reader.conf(key)[window] == 0, IGNORED, 0.7)
            refined.append((drawn, f"{name}: refined; orange is left out of training"))
    return [row for row in (first, proposed, refined) if row]


def _has(reader: LabelReader, key: str, member: str) -> bool:
    return key in reader.entries and member in reader.entries[key].members


def _foreground(reader: LabelReader, key: str, window: tuple[slice, slice]) -> np.ndarray:
    return (reader.mask(key)[window] > 0).astype(np.uint8)


def agreement(rgb: np.ndarray, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: the foreground of prediction and truth over the image, coloured by who sees it."""
    drawn = _tint(rgb, (found > 0) & (truth > 0), AGREE)
    drawn = _tint(drawn, (found > 0) & (truth == 0), ONLY_FOUND, 0.75)
    return _tint(drawn, (found == 0) & (truth > 0), ONLY_TRUE, 0.75)


def _tint(rgb: np.ndarray, where: np.ndarray, colour: tuple[int, int, int], strength: float = 0.45) -> np.ndarray:
    drawn = rgb.astype(np.float32)
    drawn[where] = (1 - strength) * drawn[where] + strength * np.asarray(colour, np.float32)
    return np.rint(drawn).astype(np.uint8)


def _window(labels: np.ndarray | None, size: tuple[int, int]) -> tuple[slice, slice]:
    """The CROP x CROP px with most objects' pixels, of windows half a crop apart."""
    best, at = -1, (0, 0)
    for y in range(0, max(1, size[0] - CROP + 1), CROP // 2):
        for x in range(0, max(1, size[1] - CROP + 1), CROP // 2):
            count = 0 if labels is None else int(np.count_nonzero(labels[y : y + CROP, x : x + CROP]))
            if count > best:
                best, at = count, (y, x)
    return slice(at[0], min(at[0] + CROP, size[0])), slice(at[1], min(at[1] + CROP, size[1]))
