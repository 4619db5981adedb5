"""train_classifier: it learns, calibrates, resumes bit for bit, and names errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_training import assert_killed_training_resumes
from loop_artifacts import payload
from real_labels import ROOT, real_data
from safetensors.torch import load_file
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from small_classifier import crops

from components.train_classifier.calibration import (
    fit_probabilities,
    fit_temperature,
    negative_log_likelihood,
    prior_correction,
)
from components.train_classifier.component import TrainClassifier
from components.train_classifier.labelled_images import LabelledImages, TrainingBatches, augment
from components.train_classifier.main import run
from components.train_classifier.saliency import saliency
from components.train_classifier.splits import choose_images
from shared.artifacts.image_set import ImageReader, ImageWriter
from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.artifacts.label_set import LabelWriter
from shared.artifacts.manifest import seal
from shared.metrics.classes import class_metrics
from shared.metrics.conformal import class_thresholds, plausible_classes
from shared.models.backbones.vit import Encoder
from shared.models.class_predictor import ClassPredictor, network_input
from shared.models.classifier import Classifier
from shared.models.config import EncoderConfig, ModelInput, VitArchitecture
from shared.models.files import is_absent, save_model
from shared.models.load import load_model
from shared.stage.declaration import Result
from shared.system.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = {"steps": 4, "batch_size": 8}
VIT = VitArchitecture.preset("nano", 8).model_copy(update={"depth": 2})


class Labelled:
    """An ImageSet, and a LabelSet with the class of each image."""

    def __init__(self, root: Path) -> None:
        self.root, self.images, self.truth = root, root / "images", root / "truth"
        self.classes: dict[str, str] = {}
        root.mkdir(parents=True, exist_ok=True)

    def write(self, rows: list[tuple[np.ndarray, str, str, str]], more: dict[str, str] | None = None) -> "Labelled":
        """rows: image (H, W, C), class (empty: none), split, group; more: classes of images that are not there."""
        with ImageWriter(self.images) as writer:
            for number, (image, name, split, group) in enumerate(rows):
                key = f"{number:04d}"
                writer.add(key, image, source=f"{key}.tif", split=split, group=group)
                if name:
                    self.classes[key] = name
        with LabelWriter(self.truth, "truth") as labels:
            for key, name in sorted((self.classes | (more or {})).items()):
                labels.classify(key, name)
        seal(self.images, ImageSet)
        seal(self.truth, LabelSet)
        return self

    def train(self, folder: Path, encoder: Path, **options) -> Result:
        folder.mkdir(parents=True)
        result = run(self.stage(folder, encoder, **options))
        seal(folder, Model, skipped=result.skipped)
        return result

    def stage(self, folder: Path, encoder: Path, **options) -> TrainClassifier:
        given = {"images": self.images, "truth": self.truth, "encoder": encoder, "classifier": folder}
        return TrainClassifier(**given, **{**QUICK, **options})


def write_encoder(folder: Path, channels: int = 1) -> Path:
    torch.manual_seed(0)
    config = EncoderConfig(architecture=VIT, input=ModelInput(channels=channels, crop_px=32))
    save_model(folder, Encoder(config).state_dict(), config, "# Untrained")
    seal(folder, Model)
    return folder


def nuclei(count: int, part: str, seed: int, split: str) -> list[tuple[np.ndarray, str, str, str]]:
    """Crops of the wheel's nuclei, in groups of ten: does one show nuclei or background?"""
    images, truth = crops(count, part, seed)
    names = ["nuclei" if k else "background" for k in truth]
    return [
        (image, name, split, f"{split}{i // 10}") for i, (image, name) in enumerate(zip(images, names, strict=True))
    ]


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


def titles(html: str) -> list[str]:
    return [part.split("</h2>")[0] for part in html.split("<h2>")[1:]]


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


# --- which images -------------------------------------------------------------------------------------------------


def pictures(*rows: tuple[str, str, str]) -> list[tuple[np.ndarray, str, str, str]]:
    """Images of random pixels with (class, split, group)."""
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 255, (32, 32, 1)).astype(np.uint8), *row) for row in rows]


def test_without_val_a_fifth_of_the_groups_takes_its_place(encoder: Path, tmp_path: Path) -> None:
    rows = pictures(*((name, "train", f"slide{i % 12}") for i in range(60) for name in ("a", "b")))
    data = Labelled(tmp_path / "data").write(rows)
    reader = ImageReader(data.images)
    for seed in range(3):
        keys = choose_images(data.stage(tmp_path / "a", encoder, seed=seed), reader, data.classes)
        groups = [
            {reader.entries[key].group for key in part} for part in (keys.train, keys.selection, keys.calibration)
        ]
        assert sum(map(len, groups)) == 12 == len(set().union(*groups))
        assert 0.1 < len(keys.val) / 120 < 0.3 and keys.test == []
        assert keys.counts(keys.val).min() > 0
    others = choose_images(data.stage(tmp_path / "a", encoder, seed=7), reader, data.classes)
    assert others.val != keys.val


def test_a_class_of_one_group_is_learned(encoder: Path, tmp_path: Path) -> None:
    rows = [("a", "train", "1")] * 9 + [("a", "train", "2")] * 2 + [("b", "train", "2")] * 4 + [("a", "train", "3")] * 2
    data = Labelled(tmp_path / "data").write(pictures(*rows))
    keys = choose_images(data.stage(tmp_path / "a", encoder), ImageReader(data.images), data.classes)
    assert keys.counts(keys.train).tolist() == [13, 4] and keys.val == [], "a val would lack the class b"


def test_a_class_of_one_image_is_learned(encoder: Path, tmp_path: Path) -> None:
    """No val can be made, so nothing stops the training or sets the temperature, and nothing hides the class."""
    data = Labelled(tmp_path / "data").write(pictures(*[("a", "train", "")] * 15, ("b", "train", "")))
    result = data.train(tmp_path / "a", encoder, steps=12)
    settings = load_model(tmp_path / "a", Classifier).config.postprocessing
    assert result.metrics["steps"] == 12 and settings.temperature == 1
    assert [len(scores) for scores in settings.calibration] == [0, 0]
    assert "no calibration image" in result.remark and "val_accuracy" not in result.metrics
    assert result.classification is not None and sum(map(sum, result.classification.confusion)) == 16
    assert "Confusion matrix, train" in titles(result.page.html())


def test_labels_are_limited_by_the_share_of_each_class(data: Labelled, encoder: Path, tmp_path: Path) -> None:
    rows = pictures(
        *(("rare" if i % 10 == 0 else "common", "train", "") for i in range(100)), *[("rare", "val", "")] * 2
    )
    data = Labelled(tmp_path / "data").write([*rows, *pictures(*[("common", "val", "")] * 2)])
    reader, chosen = ImageReader(data.images), []
    for limit, counts in ((20, [18, 2]), (5, [4, 1]), (2, [1, 1]), (1000, [90, 10])):
        keys = choose_images(data.stage(tmp_path / "a", encoder, max_labels=limit), reader, data.classes)
        assert keys.counts(keys.train).tolist() == counts
        chosen.append(keys)
    assert choose_images(data.stage(tmp_path / "a", encoder, max_labels=20, seed=1), reader, data.classes) != chosen[0]
    with pytest.raises(UserError, match=r"--max_labels: 1 are fewer than the 2 classes"):
        choose_images(data.stage(tmp_path / "a", encoder, max_labels=1), reader, data.classes)


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([("", "train", "")] * 3, {}, "no classes of images are known"),
        ([("a", "train", "")] * 3, {}, "all 3 labelled images are 'a'; a classifier needs two classes or more"),
        ([("", "train", "")] * 3, {"x": "a", "y": "b"}, "none of the 2 images with a class is among --images"),
    ],
)
def test_without_two_classes_it_fails_or_writes_an_absent_model(encoder, tmp_path, rows, more, message) -> None:
    data = Labelled(tmp_path / "data").write(pictures(*rows), more)
    with pytest.raises(UserError, match=f"--truth: {message}"):
        data.train(tmp_path / "a", encoder)
    result = data.train(tmp_path / "b", encoder, without_labels="skip")
    assert result.skipped == message and is_absent(tmp_path / "b") and result.classification is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "val", ""), ("b", "val", "")] * 3, "none of the labelled images is in the split train"),
        ([("a", "train", "")] * 3 + [("b", "test", "")] * 3, "no image of the class 'b' is in the split train"),
    ],
)
def test_splits_that_cannot_be_learned_from_are_named(encoder, tmp_path, rows, message) -> None:
    data = Labelled(tmp_path / "data").write(pictures(*rows))
    with pytest.raises(UserError, match=message):
        data.train(tmp_path / "a", encoder)


def test_small_and_incomplete_splits_are_used_and_told(encoder, tmp_path, caplog) -> None:
    """A class absent from test; a val of one image a class, which is too few for two halves; a missing image."""
    rows = [("a", "train", ""), ("b", "train", "")] * 8 + [("a", "val", ""), ("b", "val", ""), ("a", "test", "")]
    data = Labelled(tmp_path / "data").write(pictures(*rows), {"gone": "a"})
    result = data.train(tmp_path / "a", encoder)
    assert result.remark.startswith("test has no image of b. With 1 calibration image of a, infer keeps target errors")
    assert "1 images with a class are not among --images" in caplog.text
    assert "val is too small for two halves" in caplog.text
    assert "test_auroc" not in result.metrics and "test_accuracy" in result.metrics
    settings = load_model(tmp_path / "a", Classifier).config.postprocessing
    assert [len(scores) for scores in settings.calibration] == [1, 1]
    assert "needs 99 calibration images of each class" in result.page.html()


def test_an_encoder_or_a_size_that_does_not_fit_is_named(data: Labelled, encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--size: 60 is no multiple of the encoder's patch, 8 px; give 56 or 64"):
        data.train(tmp_path / "a", encoder, size=60)
    images = [
        (np.repeat(image, 4, axis=2), *rest) for image, *rest in pictures(*[("a", "train", ""), ("b", "train", "")] * 4)
    ]
    with pytest.raises(UserError, match=r"--encoder: .*made for 1 channels, the images have up to 4; give an encoder"):
        Labelled(tmp_path / "data").write(images).train(tmp_path / "b", encoder)


# --- batches, balance, calibration --------------------------------------------------------------------------------


def test_batches_follow_from_the_step_and_rare_classes_are_drawn_as_often(data, encoder, tmp_path) -> None:
    reader = ImageReader(data.images)
    images = LabelledImages(reader, ModelInput(channels=1, crop_px=32))
    keys, labels = reader.keys("train")[:40], np.array([1] * 4 + [0] * 36)
    stage = data.stage(tmp_path / "a", encoder, batch_size=64)
    batches = TrainingBatches(stage, images, keys, labels)
    whole, part = batches.batch(3), batches.batch(3, slice(10, 20))
    assert all(np.array_equal(one[10:20], other) for one, other in zip(whole, part, strict=True))
    inputs, drawn = whole
    assert inputs.shape == (64, 32, 32, 1) and 0.3 < drawn.mean() < 0.7
    natural = TrainingBatches(data.stage(tmp_path / "a", encoder, batch_size=64, balance="none"), images, keys, labels)
    assert natural.batch(3)[1].mean() < 0.25


@pytest.mark.parametrize("how", ["full", "flips", "none"])
def test_augmentation_keeps_the_size_and_the_class_of_pixels(data, how: str) -> None:
    image = network_input(ImageReader(data.images).read("0001"), ModelInput(channels=1, crop_px=32))
    made = [augment(image, np.random.default_rng(seed), how) for seed in range(60)]
    assert {one.shape for one in made} == {(32, 32, 1)}
    assert len({one.tobytes() for one in made}) == {"full": 60, "flips": 8, "none": 1}[how]
    if how == "flips":
        assert all(np.array_equal(np.sort(one, axis=None), np.sort(image, axis=None)) for one in made)
    assert all(abs(float(one.mean() - image.mean())) < 0.25 for one in made)


@pytest.mark.parametrize("balance", ["sampling", "loss"])
def test_probabilities_follow_the_frequencies_of_the_classes(encoder: Path, tmp_path: Path, balance: str) -> None:
    """Classes that cannot be told apart: the mean probability is their frequency, whichever way they are balanced."""
    rows = pictures(*(("a" if i % 5 == 0 else "b", split, "") for split in ("train", "val") for i in range(100)))
    data = Labelled(tmp_path / "data").write(rows)
    data.train(tmp_path / "a", encoder, balance=balance, tune="none", steps=60, learning_rate=5e-3)
    reader, predictor = ImageReader(data.images), ClassPredictor.of(load_model(tmp_path / "a", Classifier), "cpu")
    found = predictor([reader.read(key) for key in reader.keys("val")]).probability
    assert found[:, 0].mean() == pytest.approx(0.2, abs=0.08)


def test_a_rare_class_is_not_hidden_where_val_shows_that_the_correction_would() -> None:
    """Unsure logits, of a network that saw few images: the correction calls every image common."""
    correction, labels = np.log([1.9, 0.1]), np.array([0] * 19 + [1])
    unsure = np.where(labels[:, None] == [0, 1], 0.8, -0.8)
    nothing = np.zeros_like(unsure)
    fitted = fit_probabilities(unsure, nothing, labels, correction, with_stem=False)
    assert not fitted.added.any() and fitted.token_weight == 1
    logits = (unsure + fitted.added) / fitted.temperature
    assert fitted.loss == pytest.approx(-log_softmax(logits, axis=1)[np.arange(20), labels].mean())
    noise = np.random.default_rng(0).normal(0, 1, (20, 2))
    assert fit_probabilities(noise, nothing, labels, correction, with_stem=False).added is correction, "no knowledge"


@pytest.mark.parametrize(("noisy", "weight"), [(0, 0.0), (1, 1.0)])
def test_the_tokens_count_as_much_as_val_says(noisy: int, weight: float) -> None:
    """Of tokens and stem, the parts of the logits, one tells the class and one is noise."""
    rng, labels = np.random.default_rng(0), np.arange(200) % 2
    parts = [4 * (labels[:, None] == [0, 1]) + rng.normal(0, 1, (200, 2)) for _ in range(2)]
    parts[noisy] = rng.normal(0, 4, (200, 2))
    fitted = fit_probabilities(*parts, labels, np.zeros(2), with_stem=True)
    assert fitted.token_weight == weight
    assert fit_probabilities(*parts, labels, np.zeros(2), with_stem=False).token_weight == 1


def test_crops_of_different_size_keep_their_sizes(encoder: Path, tmp_path: Path) -> None:
    """Discs that fill the same share of their crops; the larger ones are of another class."""
    rng, rows = np.random.default_rng(0), []
    for number in range(120):
        name, side = (("small", 24), ("large", 60))[number % 2]
        distance = np.hypot(*(np.indices((side, side)) - side / 2))
        image = np.where(distance < side / 3, 160, 40) + rng.normal(0, 8, (side, side))
        split = ("train", "val", "test")[number // 2 % 3]
        rows.append((image.clip(0, 255).astype(np.uint8)[..., None], name, split, ""))
    data = Labelled(tmp_path / "data").write(rows)
    result = data.train(tmp_path / "a", encoder, steps=40, size=32, tune="none", early_stop=False)
    given = load_model(tmp_path / "a", Classifier).config.input
    assert given.window_px == 60 and result.metrics["test_accuracy"] > 0.95
    small, large = (ImageReader(data.images).read(key) for key in sorted(data.classes)[:2])
    bright = [float((network_input(one, given) > 0.5).mean()) for one in (small, large)]
    assert bright[1] / bright[0] == pytest.approx((60 / 24) ** 2, rel=0.2)
    data.train(tmp_path / "b", encoder, fit="stretch", steps=2, tune="none")
    assert load_model(tmp_path / "b", Classifier).config.input.window_px is None


def test_the_temperature_is_that_of_a_general_minimiser() -> None:
    rng = np.random.default_rng(0)
    for classes, sharpness in ((2, 0.5), (2, 6), (4, 2)):
        labels = rng.integers(classes, size=200)
        logits = sharpness * (rng.normal(size=(200, classes)) + 1.5 * np.eye(classes)[labels])
        cost = lambda log_t: -log_softmax(logits / np.exp(log_t), axis=1)[range(200), labels].mean()  # noqa: B023, E731
        best = minimize_scalar(cost, bounds=(-2.3, 3), method="bounded", options={"xatol": 1e-8})
        found = fit_temperature(logits.astype(np.float32), labels)
        assert found == pytest.approx(np.exp(best.x), rel=1e-3)
        assert negative_log_likelihood(logits, labels, found) == pytest.approx(best.fun, abs=1e-6)
    stage = TrainClassifier.model_construct(balance="sampling")
    assert prior_correction(stage, np.array([1, 3])) == pytest.approx(np.log([0.5, 1.5]))


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


# --- killed, and in several processes -----------------------------------------------------------------------------


def command(data: Labelled, encoder: Path, out: Path, **options) -> list[str]:
    given = {
        "images": data.images,
        "truth": data.truth,
        "encoder": encoder,
        "classifier": out,
        "batch_size": 5,
        "steps": 24,
    }
    words = [str(word) for name, value in (given | options).items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "components", "train_classifier", *words]


def test_killed_and_started_again_it_ends_in_the_same_weights(data: Labelled, encoder: Path, tmp_path: Path) -> None:
    assert_killed_training_resumes(lambda out: command(data, encoder, out), tmp_path)


@pytest.mark.timeout(600)
def test_two_processes_train_as_one_does(data: Labelled, encoder: Path, tmp_path: Path) -> None:
    made = {}
    for workers in (1, 2):
        fixed = {"CYTOLOOM_THREADS": str(workers), "CYTOLOOM_DEVICE": "cpu", "CYTOLOOM_WORKERS": str(workers)}
        words = command(
            data, encoder, tmp_path / str(workers), metrics=tmp_path / f"{workers}.json", steps=6, stem="false"
        )
        done = subprocess.run(words, cwd=ROOT, env={**os.environ, **fixed}, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        assert ("training in 2 processes" in done.stderr) == (workers == 2)
        weights = load_file(tmp_path / str(workers) / "model.safetensors")
        metrics = json.loads((tmp_path / f"{workers}.json").read_text())
        made[workers] = (
            metrics["loss"],
            torch.cat([weights[name].flatten() for name in sorted(weights) if "reference" not in name]),
        )
    assert made[1][0] == pytest.approx(made[2][0], rel=1e-4)
    assert torch.isclose(made[1][1], made[2][1], rtol=1e-3, atol=2e-5).float().mean() > 0.99


@pytest.mark.timeout(600)
def test_batch_norms_of_two_processes_agree(data: Labelled, encoder: Path, tmp_path: Path) -> None:
    """Each sees its own part of a batch; they score val with the same statistics, and stop together."""
    fixed = {"CYTOLOOM_THREADS": "2", "CYTOLOOM_DEVICE": "cpu", "CYTOLOOM_WORKERS": "2"}
    words = command(data, encoder, tmp_path / "a", steps=30, batch_size=8)
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, **fixed}, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    weights = load_file(tmp_path / "a/model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert not torch.equal(weights["stem.layers.1.running_mean"], torch.zeros(32))


# --- real crops ---------------------------------------------------------------------------------------------------


def test_real_data_is_here_or_said_to_be_absent() -> None:
    if not (real_data() / "malaria").is_dir():
        pytest.skip(f"{real_data()}: no real images; set CYTOLOOM_DATA to their folder")
    assert list((real_data() / "malaria/train/positive").glob("*.png"))
