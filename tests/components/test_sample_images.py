"""`sample_images`: which images of a large set the rounds learn from and are scored on, unchanged."""

from pathlib import Path

import numpy as np
import pytest
from real_labels import wheel_nuclei
from small_segmentor import write_encoder

from components.evaluate.component import Evaluate
from components.evaluate.mask_scores import choose_images
from components.export_model.component import ExportModel
from components.export_model.evaluation_set import read_evaluation_set
from components.export_model.exportable import load_exportable
from components.sample_images.component import SampleImages
from components.sample_images.main import run
from shared.artifacts.image_set import ImageEntry, ImageReader, ImageWriter
from shared.artifacts.kinds import ImageSet, LabelSet
from shared.artifacts.label_set import LabelEntry, LabelReader, LabelWriter
from shared.artifacts.manifest import seal
from shared.artifacts.payload import INDEX
from shared.artifacts.shards import read_jsonl, write_jsonl
from shared.data.labelled_images import learned_labels
from shared.stage.declaration import Result
from shared.system.errors import ArtifactError, UserError

PLANE, LABELS = wheel_nuclei()
TRAIN = [f"image{i}" for i in range(8)]


class Chosen:
    """What the stage wrote."""

    def __init__(self, result: Result, out: Path) -> None:
        for name, kind in (("learned", ImageSet), ("sample", ImageSet), ("labels", LabelSet)):
            seal(out / name, kind)
        self.result, self.sample_folder, self.labels_folder = result, out / "sample", out / "labels"
        self.learned, self.sample = ImageReader(out / "learned"), ImageReader(out / "sample")
        self.labels = LabelReader(out / "labels")


class Case:
    """Eight images of the split train and two of test; four are labelled, one of them of test; all are enlarged."""

    def __init__(self, root: Path) -> None:
        self.images, self.truth, self.model = root / "images", root / "truth", write_encoder(root / "encoder")
        with ImageWriter(self.images) as images, LabelWriter(self.truth, "truth") as labels:
            for i in range(10):
                part = np.s_[64 * (i // 4) :, 64 * (i % 4) :]
                image, found = PLANE[part][:64, :64, None], LABELS[part][:64, :64]
                if i == 3:
                    image = image.astype(np.float32)  # stored as TIFF, the others as PNG
                split, group = "test" if i > 7 else "train", f"plate {i % 2}"
                images.add(f"image{i}", image, source=f"{i}.tif", split=split, group=group, um_per_px=0.5)
                if i in (1, 2, 4, 9):
                    labels.add(f"image{i}", found, "instances", np.full((64, 64), 200, np.uint8))
        write_jsonl(self.images / INDEX, [one.enlarged(2) for one in read_jsonl(self.images / INDEX, ImageEntry)])
        write_jsonl(self.truth / INDEX, [one.enlarged(2) for one in read_jsonl(self.truth / INDEX, LabelEntry)])
        seal(self.images, ImageSet)
        seal(self.truth, LabelSet)

    def __call__(self, out: Path, **settings) -> Chosen:
        given = {"images": self.images, "truth": self.truth, "model": self.model} | settings
        written = {name: out / name for name in ("learned", "sample", "labels")}
        return Chosen(run(SampleImages(**given, **written)), out)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("set"))


def test_a_small_set_is_learned_from_whole(case: Case, tmp_path: Path) -> None:
    chosen = case(tmp_path)
    assert chosen.learned.keys() == TRAIN, "all that are of the split train"
    assert chosen.sample.keys() == [*TRAIN, "image8", "image9"]
    assert chosen.labels.keys() == ["image1", "image2", "image4", "image9"]
    assert chosen.result.metrics == {
        "images": 8,
        "train_images": 8,
        "scored": 4,
        "megapixels": pytest.approx(8 * 128**2 / 1e6),
    }


def test_of_a_large_set_some_evenly_spread_and_the_labelled_ones(case: Case, tmp_path: Path) -> None:
    assert case(tmp_path / "some", max_images=3).learned.keys() == ["image0", "image4", "image7"]
    few = case(tmp_path / "few", max_images=3, use_labels=2)
    assert few.learned.keys() == ["image0", "image1", "image2", "image4", "image7"]
    small = case(tmp_path / "small", max_megapixels=3 * 128**2 / 1e6)
    assert 2 <= len(small.learned) <= 4 and small.result.remark.endswith("of 8 images are learned from.")
    sampled = case(tmp_path / "sampled", max_sample=2)
    assert sampled.labels.keys() == ["image1", "image9"], "evenly spread over the four"
    assert sampled.sample.keys() == ["image0", "image1", "image8", "image9"], "and as many others"


def test_images_and_labels_are_the_same_in_all_that_is_said_of_them(case: Case, tmp_path: Path) -> None:
    chosen, images, truth = case(tmp_path, max_images=4), ImageReader(case.images), LabelReader(case.truth)
    for reader in (chosen.learned, chosen.sample):
        for key, entry in reader.entries.items():
            assert entry.model_dump(exclude={"member"}) == images.entries[key].model_dump(exclude={"member"})
            np.testing.assert_array_equal(reader.read(key), images.read(key))
    assert chosen.sample.read("image3").dtype == np.float32
    assert chosen.labels.info == truth.info
    for key, entry in chosen.labels.entries.items():
        assert entry.model_dump(exclude={"members"}) == truth.entries[key].model_dump(exclude={"members"})
        np.testing.assert_array_equal(chosen.labels.mask(key), truth.mask(key))
        np.testing.assert_array_equal(chosen.labels.conf(key), truth.conf(key))


@pytest.mark.parametrize("use_labels", [0, 1, 2, 9])
def test_rounds_learn_and_are_scored_on_the_same_labels_as_on_the_whole_set(
    case: Case, tmp_path: Path, use_labels: int
) -> None:
    """What the stages of a round choose from the small sets is what they would choose from the whole one."""
    chosen, images, truth = case(tmp_path, use_labels=use_labels), ImageReader(case.images), LabelReader(case.truth)
    whole = learned_labels(truth, set(images.keys("train")), use_labels)
    assert learned_labels(chosen.labels, set(chosen.learned.keys()), use_labels) == whole
    on_whole = choose_images(truth, images, use_labels, Evaluate.model_fields["split"].default)
    assert choose_images(chosen.labels, chosen.sample, use_labels) == on_whole


def test_an_export_is_compared_on_labelled_images_and_calibrated_on_others(case: Case, tmp_path: Path) -> None:
    chosen = case(tmp_path)
    stage = ExportModel(
        images=chosen.sample_folder, truth=chosen.labels_folder, model=case.model, exported=tmp_path / "exported"
    )
    found = read_evaluation_set(stage, load_exportable(case.model))
    assert len(found.images) == 2 and len(found.calibration) == 8


def test_nothing_to_learn_from(case: Case, tmp_path: Path) -> None:
    with ImageWriter(tmp_path / "images") as writer:
        writer.add("a", PLANE[:64, :64, None], source="a.tif", split="test")
    seal(tmp_path / "images", ImageSet)
    with pytest.raises(UserError, match="none of the 1 images is of the split train"):
        case(tmp_path / "none", images=tmp_path / "images")
    with ImageWriter(tmp_path / "others") as writer:
        writer.add("b", PLANE[:64, :64, None], source="b.tif")
    seal(tmp_path / "others", ImageSet)
    with pytest.raises(ArtifactError, match=r"'image1' has labels, but is no image of .*others"):
        case(tmp_path / "foreign", images=tmp_path / "others")
