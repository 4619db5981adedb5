"""train_classifier: which images it learns from, what it sees of them, batches, and calibration; errors."""

from pathlib import Path

import numpy as np
import pytest
from labelled_crops import Labelled, nuclei, pictures, titles, write_encoder
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from components.train_classifier.calibration import (
    fit_probabilities,
    fit_temperature,
    negative_log_likelihood,
    prior_correction,
)
from components.train_classifier.component import TrainClassifier
from components.train_classifier.labelled_images import LabelledImages, TrainingBatches, augment
from components.train_classifier.splits import choose_images
from shared.artifacts.image_set import ImageReader
from shared.models.class_predictor import ClassPredictor, network_input
from shared.models.classifier import Classifier
from shared.models.config import ModelInput
from shared.models.files import is_absent
from shared.models.load import load_model
from shared.system.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    rows = [*nuclei(120, "upper", 0, "train"), *nuclei(120, "upper", 1, "val"), *nuclei(60, "lower", 2, "test")]
    return Labelled(tmp_path_factory.mktemp("nuclei")).write(rows)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder")


# --- which images -------------------------------------------------------------------------------------------------


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
