"""train_segmentor: it learns, resumes bit for bit, passes through, and says what is wrong."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from components.train_segmentor.loss import LEVELS, drop_largest_losses, foreground_loss
from loop_artifacts import Data, dice, payload
from real_labels import ROOT, wheel_nuclei
from skimage import measure
from torch.optim.optimizer import register_optimizer_step_post_hook

from components.train_segmentor import main
from components.train_segmentor.calibration import SADDLES, WAYS, calibrate_splitting
from components.train_segmentor.component import TrainSegmentor
from components.train_segmentor.labelled_crops import LabelledCrops
from components.train_segmentor.main import LATER, Plan, run
from components.train_segmentor.main import train as loop
from shared.artifacts.image_set import ImageReader
from shared.artifacts.kinds import LabelSet, Model
from shared.artifacts.label_set import NOTE_BORDER_REFINEMENT, NOTE_HAND_LABELLED, LabelReader, LabelWriter
from shared.artifacts.manifest import read_manifest, seal
from shared.imaging.normalise import Normalisation
from shared.instances.postprocess import find
from shared.metrics.tally import tally
from shared.models.backbones.vit import Encoder, EncoderConfig, save_encoder
from shared.models.segmentor import load_segmentor
from shared.models.tiled_inference import predict, predict_maps
from shared.system.errors import UserError
from shared.training.seeds import step_generator

QUICK = {"steps": 4, "batch_size": 2, "crop": 64}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = os.environ.get("CYTOLOOM_THREADS")
    os.environ["CYTOLOOM_THREADS"] = "1"  # a loaded machine is much slower with more
    yield
    os.environ.pop("CYTOLOOM_THREADS") if before is None else os.environ.update(CYTOLOOM_THREADS=before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The wheel's nuclei with their true foreground as pseudo-masks, and an untrained encoder."""
    image, mask = wheel_nuclei()
    data = Data(tmp_path_factory.mktemp("train"), [(image[:256, :256], mask[:256, :256]), (image[256:], mask[256:])])
    data.pseudo = data.labels("pseudo", {key: (mask > 0).astype(np.uint8) for key, mask in data.masks.items()})
    config = EncoderConfig.of("nano", patch=8, channels=1, crop=64)
    torch.manual_seed(0)
    save_encoder(data.root / "encoder", Encoder(config), config, "# Untrained")
    seal(data.root / "encoder", Model)
    return data


def train(data: Data, folder, labels=None, model=None, **options):
    folder.mkdir(parents=True)
    stage = TrainSegmentor(
        images=data.images,
        labels=labels or data.pseudo,
        model=model or data.root / "encoder",
        segmentor=folder,
        **{**QUICK, **options},
    )
    result = run(stage)
    seal(folder, Model, skipped=result.skipped)
    return result


def score(data: Data, folder) -> float:
    segmentor, config = load_segmentor(folder)
    image = ImageReader(data.images).read("image0")
    found = predict(segmentor, config, image, tile=128, batch_size=4, device="cpu")
    return dice(found >= 0.5, data.masks["image0"])


def test_it_learns_and_goes_on_from_itself(data, tmp_path):
    result = train(data, tmp_path / "first", steps=40, batch_size=4, crop=96)
    assert result.metrics["loss"] < 0.8 * result.metrics["first_loss"]
    assert result.values == {"converged": False}
    assert "<svg" in result.page.html() and "<img" in result.page.html()
    first = score(data, tmp_path / "first")
    assert first > 0.75
    assert "pseudo-masks of 2 images; no hand-drawn label was used" in (tmp_path / "first/MODEL_CARD.md").read_text()
    later = train(data, tmp_path / "second", model=tmp_path / "first", steps=40, batch_size=4, crop=96)
    assert later.metrics["first_loss"] < 0.8 * result.metrics["first_loss"]
    card = (tmp_path / "second/MODEL_CARD.md").read_text()
    assert "Training: 20 steps of 4 crops of 96 px, peak learning rate 0.0015" in card
    assert score(data, tmp_path / "second") > first - 0.02


def test_what_is_saved_is_the_moving_average_of_the_weights(data, tmp_path):
    """Against one made here, of the weights as the optimiser leaves them after each step."""
    train(data, tmp_path / "start", steps=1)
    train(data, tmp_path / "saved", model=tmp_path / "start", steps=12)
    segmentor, config = load_segmentor(tmp_path / "start")
    expected = {name: value.clone() for name, value in segmentor.state_dict().items()}
    number = itertools.count()

    def follow(*_: object) -> None:
        step = next(number)
        for name, new in segmentor.state_dict().items():
            expected[name].lerp_(new, 1 - min(0.98, (1 + step) / (10 + step)))

    given = {"images": data.images, "labels": data.pseudo, "model": tmp_path / "start", "segmentor": tmp_path}
    reader, labels = ImageReader(data.images), LabelReader(data.pseudo)
    crops = LabelledCrops(
        reader, labels, reader.keys(), size=64, channels=1, normalisation=config.encoder.normalisation
    )
    watched = register_optimizer_step_post_hook(follow)
    loop(TrainSegmentor(**given, **{**QUICK, "steps": 12}), segmentor, crops, Plan(6, LATER * 3e-3), "cpu")
    watched.remove()
    saved, last = load_segmentor(tmp_path / "saved")[0].state_dict(), segmentor.state_dict()
    assert next(number) == 6
    for name in saved:
        torch.testing.assert_close(saved[name], expected[name], atol=1e-6, rtol=0)
    assert max((saved[name] - last[name]).abs().max() for name in saved) > 1e-4, "not the last weights"


def test_how_sure_it_is_of_cells_is_learned_in_training(data, tmp_path):
    """Nine tenths of what the typical object reaches; a network that has hardly learned keeps its objects so."""
    for name, steps in (("hardly", 3), ("well", 60)):
        result = train(data, tmp_path / name, steps=steps, batch_size=4, crop=96)
        segmentor, config = load_segmentor(tmp_path / name)
        typical = []
        for image in map(ImageReader(data.images).read, data.masks):
            part = image[:, 64:448]  # the middle
            probability = predict(segmentor, config, part, tile=128, batch_size=16, device="cpu")
            pieces = measure.label(probability >= 0.5, connectivity=1)
            objects = measure.regionprops(pieces, probability)
            pixels = np.concatenate([np.full(int(one.area), one.intensity_max) for one in objects])
            typical.append(np.median(pixels))
        assert config.sure == result.metrics["sure"] == pytest.approx(0.9 * np.median(typical), abs=2e-3)
        maps = predict_maps(segmentor, config, image, tile=128, batch_size=8, device="cpu")
        assert find(maps, image, sure=config.sure, sharpen=config.sharpen).mask.any()


def write_drawn(data: Data, folder, kind: str):
    """The true masks, the first image's noted as drawn by a person."""
    with LabelWriter(folder, "pseudo", {NOTE_HAND_LABELLED: ["image0"]}) as writer:
        for key, mask in data.masks.items():
            writer.add(key, mask if kind == "instances" else (mask > 0).astype(np.uint8), kind)
    seal(folder, LabelSet)
    return folder


def test_drawn_cells_teach_how_to_part_them(data, tmp_path):
    """Nothing that was tried is better, and every later stage reads it in the segmentor's config."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    drawn = write_drawn(data, folder, "instances")
    result = train(data, tmp_path / "a", labels=drawn, steps=60)
    segmentor, config = load_segmentor(tmp_path / "a")
    image = ImageReader(data.images).read("image0")
    maps = predict_maps(segmentor, config, image, tile=128, batch_size=8, device="cpu")
    scores = {}
    for sharpen in WAYS:
        found = find(maps.copy(), image, sure=config.sure, sharpen=sharpen)
        for saddle in SADDLES:
            numbers = tally(data.masks["image0"], found.cells(saddle)).metrics()
            scores[sharpen, saddle] = numbers["dice"] + numbers["f1"]
    assert scores[config.sharpen, config.saddle] == max(scores.values()) > min(scores.values())
    assert result.metrics["saddle"] == config.saddle
    card = (tmp_path / "a/MODEL_CARD.md").read_text()
    assert "pseudo-masks of 1 images and from the labels that a person drew of 1 more" in card


def test_masks_that_were_sharpened_ask_for_predictions_that_are(data, tmp_path):
    folder = tmp_path / "sharpened"
    folder.mkdir()
    with LabelWriter(folder, "pseudo", {NOTE_BORDER_REFINEMENT: "edges"}) as writer:
        for key, mask in data.masks.items():
            writer.add(key, mask, "instances")
    seal(folder, LabelSet)
    train(data, tmp_path / "a", labels=folder)
    assert load_segmentor(tmp_path / "a")[1].sharpen == "edges"
    train(data, tmp_path / "b")
    assert load_segmentor(tmp_path / "b")[1].sharpen == "none"


def test_what_contradicts_most_is_left_out_where_borders_missed_the_edges(data, tmp_path):
    masks = {key: (mask > 0).astype(np.uint8) for key, mask in data.masks.items()}
    made = {}
    drawn = {"edges": [], "means": [], "drawn": ["image0"]}
    for how, known in drawn.items():
        notes = {NOTE_BORDER_REFINEMENT: "means" if how == "means" else "edges", NOTE_HAND_LABELLED: known}
        labels = data.labels(f"left-out-{how}", masks, notes=notes)
        for share in (0.0, 0.3):
            steps = QUICK["steps"] * (2 if how == "edges" else 1)  # half of them are taken there
            train(data, tmp_path / f"{how}{share}", labels=labels, left_out=share, steps=steps)
            made[how, share] = payload(tmp_path / f"{how}{share}")["model.safetensors"]
    assert made["means", 0.0] == made["means", 0.3] == made["edges", 0.0] != made["edges", 0.3]
    assert made["drawn", 0.0] == made["drawn", 0.3], "what a person drew is right"
    card = (tmp_path / "edges0.3/MODEL_CARD.md").read_text()
    assert f"Training: {QUICK['steps']} steps" in card and "learning rate 0.003" in card
    again = [tmp_path / f"again{share}" for share in (0.0, 0.3)]
    for folder, share in zip(again, (0.0, 0.3), strict=True):
        train(data, folder, model=tmp_path / "edges0.3", labels=data.root / "left-out-edges", left_out=share)
    assert payload(again[0]) == payload(again[1]), "in later rounds all is learned"


def test_more_steps_are_taken_where_images_are_of_several_kinds(data, tmp_path, monkeypatch):
    """As many for each, in every round, and not without end."""
    image, mask = (plane[:256, :256] for plane in wheel_nuclei())
    two = Data(tmp_path, [(image, mask), (image.max() - image, mask)])
    two.pseudo = two.labels("pseudo", {key: (mask > 0).astype(np.uint8) for key, mask in two.masks.items()})

    def steps(name: str, model: str | None = None) -> str:
        folder = tmp_path / name
        train(two, folder, model=folder.parent / model if model else data.root / "encoder", steps=10)
        return (folder / "MODEL_CARD.md").read_text().split("Training: ")[1].split(" of ")[0]

    assert steps("first") == "20 steps" and steps("later", "first") == "10 steps"
    monkeypatch.setattr(main, "MOST_KINDS", 1.2)
    assert steps("at most") == "12 steps"


def test_a_foreground_mask_teaches_no_parting(data, tmp_path):
    folder = tmp_path / "drawn"
    folder.mkdir()
    labels = LabelReader(write_drawn(data, folder, "foreground"))
    train(data, tmp_path / "a")
    segmentor, config = load_segmentor(tmp_path / "a")
    assert calibrate_splitting(segmentor, config, ImageReader(data.images), labels, ["image0"], "cpu") == config


def test_the_same_run_twice_gives_the_same_bytes(data, tmp_path):
    train(data, tmp_path / "a")
    train(data, tmp_path / "b")
    train(data, tmp_path / "c", seed=1)
    assert payload(tmp_path / "a") == payload(tmp_path / "b")
    assert payload(tmp_path / "a")["model.safetensors"] != payload(tmp_path / "c")["model.safetensors"]


def test_converged_by_agreement(data, tmp_path):
    options = {**QUICK, "steps": 1}
    assert train(data, tmp_path / "a", agreement=0.9, stop_agreement=0.9, **options).values == {"converged": True}
    assert train(data, tmp_path / "b", agreement=0.89, stop_agreement=0.9, **options).values == {"converged": False}


def test_converged_passes_the_model_through(data, tmp_path):
    train(data, tmp_path / "first", steps=1)
    result = train(data, tmp_path / "second", labels=data.none, model=tmp_path / "first", skip=True)
    assert result.values == {"converged": True} and result.skipped
    assert payload(tmp_path / "second") == payload(tmp_path / "first")
    with pytest.raises(UserError, match="segmentor"):
        train(data, tmp_path / "third", skip=True)


def test_no_foreground_names_the_remedy(data, tmp_path):
    blank = data.labels("blank", {key: np.zeros_like(mask, np.uint8) for key, mask in data.masks.items()})
    for number, labels in enumerate((blank, data.none)):
        with pytest.raises(UserError, match="use_labels"):
            train(data, tmp_path / str(number), labels=labels)


def command(data: Data, out) -> list[str]:
    arguments = {"images": data.images, "labels": data.pseudo, "model": data.root / "encoder", "segmentor": out}
    arguments |= {"steps": 12, "batch_size": 2, "crop": 64}
    words = [str(word) for name, value in arguments.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "components", "train_segmentor", *words]


def test_killed_and_started_again_it_ends_in_the_same_weights(data, tmp_path):
    """kill -9 once a checkpoint is there; the same command goes on from it."""
    environment = {**os.environ, "CYTOLOOM_CHECKPOINTS": str(tmp_path / "kept"), "CYTOLOOM_CHECKPOINT_SECONDS": "0"}
    options = {"cwd": ROOT, "env": environment, "stderr": subprocess.PIPE, "text": True}
    unbroken = subprocess.run(command(data, tmp_path / "unbroken"), **options, timeout=300)
    assert unbroken.returncode == 0, unbroken.stderr
    killed = subprocess.Popen(command(data, tmp_path / "resumed"), **options)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "kept").rglob("checkpoint.pt")) and killed.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "resumed").exists()
    again = subprocess.run(command(data, tmp_path / "resumed"), **options, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "going on from the checkpoint" in again.stderr
    assert read_manifest(tmp_path / "resumed").digest == read_manifest(tmp_path / "unbroken").digest


def test_masks_are_cut_and_turned_with_their_images(tmp_path):
    _, mask = wheel_nuclei()
    shown = (mask > 0).astype(np.uint16) * 1000
    data = Data(tmp_path, [(shown, mask)])
    labels = data.labels(
        "pseudo", {"image0": (mask > 0).astype(np.uint8)}, conf={"image0": np.full_like(mask, 51, np.uint8)}
    )
    crops = LabelledCrops(
        ImageReader(data.images),
        LabelReader(labels),
        ["image0"],
        size=64,
        channels=1,
        normalisation=Normalisation(low=0, high=100),
    )
    images, wanted = crops.batch(16, step_generator(0, 0))
    assert images.shape == (16, 64, 64, 1) and wanted.shape == (16, 3, 64, 64) and wanted.dtype == np.float32
    targets, weights, depths = wanted.transpose(1, 0, 2, 3)
    assert (depths[targets == 0] == 0).all() and 0.3 < depths[targets > 0].mean() < 0.6 and depths.max() == 1
    assert ((images[..., 0] > 0.45) == (targets > 0)).mean() > 0.97
    np.testing.assert_allclose(weights, 0.2, rtol=1e-6)
    assert targets.mean() > 1.1 * (mask > 0).mean()  # drawn towards the foreground
    np.testing.assert_array_equal(images, crops.batch(16, step_generator(0, 0))[0])


def test_the_loss_is_cross_entropy_and_half_a_dice_of_what_is_trusted():
    rng = np.random.default_rng(0)
    logits, weight = rng.normal(size=(2, 8, 8)), rng.random((2, 8, 8))
    target = (rng.random((2, 8, 8)) > 0.5).astype(float)
    weight[0] = 0
    p = 1 / (1 + np.exp(-logits))
    entropy = -(weight * (target * np.log(p) + (1 - target) * np.log(1 - p))).sum() / weight.sum()
    overlap = (2 * (weight * p * target).sum() + 1) / ((weight * (p + target)).sum() + 1)
    tensors = [torch.from_numpy(array) for array in (logits, target, weight)]
    assert foreground_loss(*tensors).item() == pytest.approx(entropy + 0.5 * (1 - overlap))
    tensors[0][0] = 99.0
    assert foreground_loss(*tensors).item() == pytest.approx(entropy + 0.5 * (1 - overlap))
    nothing = foreground_loss(tensors[0], tensors[1], torch.zeros_like(tensors[2]))
    assert nothing.item() == 0


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_the_known_pixels_of_the_largest_loss_count_for_nothing(share):
    rng = np.random.default_rng(0)
    logits, weight = rng.normal(size=(2, 64, 64)), rng.choice([0, 0.5, 1], (2, 64, 64))
    target = (rng.random((2, 64, 64)) > 0.5).astype(float)
    left = drop_largest_losses(*(torch.from_numpy(array) for array in (logits, target, weight)), share).numpy()
    loss = weight * np.where(target > 0, np.logaddexp(0, -logits), np.logaddexp(0, logits))
    worst = loss > np.quantile(loss[weight > 0], 1 - share)
    assert (left[~worst] == weight[~worst]).all()
    assert ((left > 0) & worst).sum() <= 3 * (weight > 0).sum() / LEVELS < ((left == 0) & (weight > 0)).sum()


def test_where_nothing_is_known_nothing_is_left_out():
    zeros = torch.zeros(1, 4, 4)
    assert drop_largest_losses(zeros, zeros, zeros, 0.1).sum() == 0
