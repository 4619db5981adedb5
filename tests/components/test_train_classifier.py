"""train_classifier: it learns and calibrates; what its page and its saliency show."""

from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_crops import Labelled, nuclei, titles, write_encoder
from loop_artifacts import payload
from real_labels import real_data
from safetensors.torch import load_file
from small_classifier import crops

from components.train_classifier.labelled_images import LabelledImages
from components.train_classifier.loop import EarlyStop
from components.train_classifier.saliency import saliency
from components.train_classifier.splits import choose_images
from shared.artifacts.image_set import ImageReader
from shared.metrics.classes import class_metrics
from shared.metrics.conformal import class_thresholds, plausible_classes
from shared.models.class_predictor import ClassPredictor
from shared.models.classifier import Classifier
from shared.models.config import ModelInput
from shared.models.load import load_model
from shared.stage.declaration import Result

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    rows = [*nuclei(120, "upper", 0, "train"), *nuclei(120, "upper", 1, "val"), *nuclei(60, "lower", 2, "test")]
    return Labelled(tmp_path_factory.mktemp("nuclei")).write(rows)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder")


@pytest.fixture(scope="module")
def trained(data: Labelled, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("trained") / "classifier"
    return folder, data.train(folder, encoder, steps=60, batch_size=16)


def test_it_learns_and_its_scores_are_those_of_what_it_saved(data: Labelled, trained: tuple[Path, Result]) -> None:
    folder, result = trained
    classifier, reader = load_model(folder, Classifier), ImageReader(data.images)
    assert classifier.config.architecture.classes == ("background", "nuclei")
    assert classifier.config.input.crop_px == 48, "about their own size"
    predictor = ClassPredictor.of(classifier, "cpu")
    for split in ("train", "val", "test"):
        keys = reader.keys(split)
        truth = np.array([data.classes[key] == "nuclei" for key in keys]).astype(int)
        found = predictor([reader.read(key) for key in keys])
        expected = {f"{split}_{name}": value for name, value in class_metrics(found.probability, truth)}
        assert {name: result.metrics[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    assert result.metrics["loss"] < 0.5 * result.metrics["first_loss"]
    assert result.metrics["test_accuracy"] > 0.9 and result.metrics["test_auroc"] > 0.97
    assert result.classification is not None and sum(map(sum, result.classification.confusion)) == 60
    assert result.classification.roc[0] == (0, 0, 1)
    shown = result.page.html()
    assert shown.count("<svg") == 4 and shown.count("<figure>") >= 12
    assert {"Reliability and ROC", "Confusion matrix, test", "Least sure, test"} <= set(titles(shown))


def test_half_of_val_calibrates_and_the_other_half_stops(data: Labelled, encoder: Path, trained) -> None:
    folder, _ = trained
    keys = choose_images(data.stage(folder, encoder), ImageReader(data.images), data.classes)
    assert sorted(keys.selection + keys.calibration) == keys.val and not set(keys.selection) & set(keys.calibration)
    groups = {key: ImageReader(data.images).entries[key].group for key in keys.val}
    assert not {groups[key] for key in keys.selection} & {groups[key] for key in keys.calibration}
    classifier, reader = load_model(folder, Classifier), ImageReader(data.images)
    found = ClassPredictor.of(classifier, "cpu")([reader.read(key) for key in keys.calibration])
    settings, labels = classifier.config.postprocessing, keys.labels(keys.calibration)
    for number, scores in enumerate(settings.calibration):
        assert np.sort(found.probability[labels == number, number]) == pytest.approx(scores, abs=1e-4)
    assert np.sort(found.distance) == pytest.approx(settings.calibration_distances, rel=1e-3)


def test_images_of_another_kind_are_far_away(trained: tuple[Path, Result]) -> None:
    classifier = load_model(trained[0], Classifier)
    limit = max(classifier.config.postprocessing.calibration_distances)
    stripes = np.tile((np.arange(48) // 6 % 2 * 200).astype(np.uint8)[:, None, None], (1, 48, 1))
    others = [stripes, np.swapaxes(stripes, 0, 1)]
    assert (ClassPredictor.of(classifier, "cpu")(others).distance > limit).all()


@pytest.mark.parametrize(
    ("tune", "kept"), [("none", {"patch_embed", "blocks.0", "blocks.1"}), ("last", {"blocks.0"}), ("all", set())]
)
def test_the_blocks_that_are_asked_for_are_trained(data: Labelled, encoder: Path, tmp_path: Path, tune, kept) -> None:
    data.train(tmp_path / "a", encoder, tune=tune, last_blocks=1)
    before, after = load_file(encoder / "model.safetensors"), load_file(tmp_path / "a/model.safetensors")
    for name, value in before.items():
        same = torch.equal(value, after[f"encoder.{name}"])
        if any(name.startswith(part) for part in kept):
            assert same, name
        elif name == "blocks.1.mlp.fc1.weight":
            assert not same
    assert ("stem.proj.weight" in after) == (tune == "all")


def test_three_classes_of_colour_images_of_16_bit(tmp_path: Path) -> None:
    """The colour alone tells the third class; an image without a class is not used."""
    rows = []
    for split, seed in (("train", 0), ("val", 1)):
        for image, name, *_ in nuclei(60, "upper", seed, split):
            colour = np.repeat(image, 3, axis=2).astype(np.uint16)
            rows.append((colour, name, split, ""))
            rows.append(
                (np.stack([colour[..., 0], colour[::-1, :, 0], colour[:, ::-1, 0]], axis=2), "mixed", split, "")
            )
    data = Labelled(tmp_path / "data").write([*rows, (rows[0][0], "", "train", "")])
    result = data.train(tmp_path / "a", write_encoder(tmp_path / "encoder", 3), steps=60, batch_size=16)
    assert result.metrics["val_accuracy"] > 0.6 and result.metrics["val_auroc"] > 0.8
    assert result.classification is not None
    assert result.classification.labels == ["background", "mixed", "nuclei"] and result.classification.roc == []
    assert len(load_model(tmp_path / "a", Classifier).config.postprocessing.calibration) == 3


def test_the_same_run_twice_gives_the_same_bytes(data: Labelled, encoder: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        data.train(tmp_path / name, encoder, seed=seed)
    assert payload(tmp_path / "a") == payload(tmp_path / "b")
    assert payload(tmp_path / "a")["model.safetensors"] != payload(tmp_path / "c")["model.safetensors"]


def test_it_stops_where_val_gets_no_better(encoder: Path, tmp_path: Path) -> None:
    """With the classes of val exchanged, val gets worse from the start."""
    rows, other = nuclei(40, "upper", 0, "train"), {"nuclei": "background", "background": "nuclei"}
    rows += [(image, other[name], "val", "") for image, name, *_ in nuclei(40, "upper", 1, "val")]
    data = Labelled(tmp_path / "data").write(rows)
    stopped = data.train(tmp_path / "a", encoder, steps=60)
    assert stopped.metrics["steps"] < 60
    assert data.train(tmp_path / "b", encoder, steps=20, early_stop=False).metrics["steps"] == 20


def test_it_stops_where_nothing_is_left_to_learn() -> None:
    early, ended = EarlyStop(), []
    for step, score in enumerate((0.3, 0.009, 0.02, 0.008, 0.007, 0.006)):
        early.add(step, score)
        ended.append(early.over)
    assert ended == [False, False, False, False, False, True], "three scores in a row are as good as certain"


def test_the_error_among_the_answered_is_at_most_the_target(data: Labelled, trained: tuple[Path, Result]) -> None:
    """On new crops of the same image half as the calibration images, as conformal prediction promises."""
    classifier = load_model(trained[0], Classifier)
    images, truth = crops(200, "upper", seed=5)
    found = ClassPredictor.of(classifier, "cpu")(images)
    thresholds = class_thresholds(classifier.config.postprocessing.calibration, 0.1)
    covered = plausible_classes(found.probability, thresholds)[np.arange(200), truth]
    assert covered.mean() > 0.82  # 0.9 expected, with 30 calibration images a class


# --- saliency -----------------------------------------------------------------------------------------------------


def test_saliency_points_at_a_planted_bright_spot(encoder: Path, tmp_path: Path) -> None:
    """Images of noise, with a bright spot or without; the spot's place is random."""
    rng, rows, places = np.random.default_rng(0), [], {}
    for number in range(160):
        image = rng.normal(100, 10, (48, 48, 1))
        y, x = rng.integers(2, 38, 2)
        if number % 2:
            image[y : y + 8, x : x + 8] += 60
            places[f"{number:04d}"] = (y + 4, x + 4)
        rows.append(
            (image.clip(0, 255).astype(np.uint8), ("none", "spot")[number % 2], ("train", "val")[number >= 120], "")
        )
    data = Labelled(tmp_path / "data").write(rows)
    result = data.train(tmp_path / "a", encoder, steps=80, batch_size=16)
    assert result.metrics["val_accuracy"] > 0.9
    classifier, images = (
        load_model(tmp_path / "a", Classifier),
        LabelledImages(ImageReader(data.images), ModelInput(channels=1, crop_px=48)),
    )
    keys = sorted(places)
    maps = saliency(
        classifier, torch.from_numpy(next(images.batches(keys, 100))), torch.ones(len(keys), dtype=torch.long)
    )
    assert maps.shape == (80, 48, 48) and maps.min() >= 0 and maps.max() == pytest.approx(1, abs=1e-5)
    found = [np.unravel_index(one.argmax(), one.shape) for one in maps]
    off = [np.hypot(y - places[key][0], x - places[key][1]) for (y, x), key in zip(found, keys, strict=True)]
    assert np.mean(np.array(off) < 10) > 0.9


# --- real crops ---------------------------------------------------------------------------------------------------


def test_real_data_is_here_or_said_to_be_absent() -> None:
    if not (real_data() / "malaria").is_dir():
        pytest.skip(f"{real_data()}: no real images; set CYTOLOOM_DATA to their folder")
    assert list((real_data() / "malaria/train/positive").glob("*.png"))
