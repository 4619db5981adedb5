"""train_detector: it learns, from unlabelled images as well, resumes bit for bit, and runs in two processes."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detector_training import QUICK, VALID, Data, learned, stage, train, write_data
from killed_training import assert_killed_training_resumes
from real_labels import ROOT
from torch import nn

from components.train_detector.batches import Batches
from components.train_detector.initial_detector import initial_detector
from components.train_detector.loop import pseudo_weight
from components.train_detector.objective import Objective
from components.train_detector.pseudo_boxes import mixed, pseudo_boxes, ramp_up
from components.train_detector.training_record import TrainingRecord
from shared.artifacts.image_set import ImageReader
from shared.data.box_crops import BoxCrops
from shared.data.boxes import Boxes
from shared.imaging.resize import resize
from shared.metrics.boxes import ALL, best_threshold, precision_recall
from shared.models.box_predictor import BoxPredictor
from shared.models.config import ModelInput
from shared.models.detector import Detector
from shared.models.load import load_model

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return write_data(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def trained(data: Data):
    """A detector after 48 steps of 4 crops: its folder and the Result."""
    options = {"steps": 48, "batch_size": 4, "downsample": "2", "valid_every": 24, "mosaic": 0.2}
    result = train(data, data.root / "trained", **options)
    return data.root / "trained", result


def test_it_learns(trained):
    _, result = trained
    assert result.metrics["loss"] < 0.85 * result.metrics["first_loss"]
    assert result.metrics["ap50"] > 0.05
    assert {"ap", "ap50_large", "ap50_small", "f1", "score_threshold"} <= set(result.metrics)


def test_the_threshold_has_the_best_f1_on_the_held_out_images(data, trained):
    folder, result = trained
    detector = load_model(folder, Detector)
    threshold = detector.config.postprocessing.score_threshold
    assert threshold == pytest.approx(result.metrics["score_threshold"], abs=1e-4)
    predictor = BoxPredictor.of(detector, "cpu")
    names, reader = detector.config.architecture.classes, ImageReader(data.images)
    found = {key: predictor(reader.read(key)).annotations(names) for key in VALID}
    curve = precision_recall({key: data.boxes[key] for key in VALID}, found)[ALL]
    assert best_threshold(curve)[1] == pytest.approx(result.metrics["f1"], abs=1e-6)


def test_the_page_and_the_card_say_what_was_done(data, trained):
    folder, result = trained
    html, card = result.page.html(), (folder / "MODEL_CARD.md").read_text()
    for text in ("parts of the loss", "precision and recall", "Worst", "Best", "large", "small"):
        assert text in html
    assert html.count("<img") >= 4
    learned = sum(one.category == "large" for key, found in data.boxes.items() if key not in VALID for one in found)
    assert f"large ({learned} boxes)" in card and "48 steps of 4 crops" in card


# --- the loop ---------------------------------------------------------------------------------------------------------


def test_training_ends_when_it_no_longer_helps_and_the_best_weights_are_kept(data):
    detector = initial_detector(stage(data, crop=64), ImageReader(data.images), learned(data))
    record = TrainingRecord(copy.deepcopy(detector))
    for step, ap in enumerate((0.1, 0.3, 0.2, 0.25)):
        with torch.no_grad():
            detector.transformer.enc_score_head.bias.fill_(ap)
        record.measure(step, {"ap": ap}, detector)
    assert record.since_best == 2 and record.curve("ap") == [(0, 0.1), (1, 0.3), (2, 0.2), (3, 0.25)]
    assert record.best.transformer.enc_score_head.bias.unique().item() == pytest.approx(0.3)
    again = TrainingRecord(copy.deepcopy(detector))
    again.load_state_dict(record.state_dict())
    assert (again.measured, again.since_best) == (record.measured, 2)


def test_a_part_of_a_batch_is_that_of_the_whole(data, monkeypatch):
    """What several processes draw together is what one draws alone."""
    made, reader = (
        stage(data, crop=64, batch_size=5, unlabelled_batch=3, mosaic=0.5, mixup=0.5),
        ImageReader(data.images),
    )
    found = learned(data)
    crops = BoxCrops(reader, found.boxes(found.train), found.train, size=(64, 64), model_input=ModelInput(channels=1))
    batches = Batches(made, crops, [crops])
    whole, again, later = batches.batch(3), batches.batch(3), batches.batch(4)
    for name in ("labelled", "weak"):
        for (one, boxes), (other, others) in zip(getattr(whole, name), getattr(again, name), strict=True):
            np.testing.assert_array_equal(one, other)
            np.testing.assert_array_equal(boxes.corners, others.corners)
    assert not np.array_equal(whole.labelled[0][0], later.labelled[0][0])
    assert not np.array_equal(whole.weak[0][0], whole.strong[0])
    parts = []
    for own in (slice(0, 2), slice(2, 5)):
        monkeypatch.setattr("components.train_detector.batches.part", lambda count, own=own: own)
        parts += batches.batch(3).labelled
    assert all(np.array_equal(one[0], other[0]) for one, other in zip(parts, whole.labelled, strict=True))


def test_a_crop_without_objects_is_learned_as_background(data):
    detector = initial_detector(stage(data, crop=64), ImageReader(data.images), learned(data)).train()
    crop = np.zeros((64, 64, 1), np.float32)
    loss, parts = Objective(detector)([(crop, Boxes.none())] * 2, [], 0.0)
    loss.backward()
    assert parts["vfl"] > 0 and parts["bbox"] == 0
    assert all(parameter.grad is not None for parameter in detector.parameters())


# --- unlabelled images ------------------------------------------------------------------------------------------------


def test_pseudo_boxes_are_those_of_high_scores(data, trained):
    detector = load_model(trained[0], Detector)
    reader = ImageReader(data.images)
    crops = [resize(ModelInput(channels=1).normalisation(reader.read(key)), (64, 64)) for key in VALID]
    many = pseudo_boxes(detector, crops, "cpu", 0.05, 50)
    few = pseudo_boxes(detector, crops, "cpu", 0.05, 3)
    none = pseudo_boxes(detector, crops, "cpu", 1.0, 50)
    assert sum(map(len, many)) > 12 and max(map(len, few)) <= 3 and not any(map(len, none))
    for one, more in zip(few, many, strict=True):
        assert {tuple(box) for box in one.corners} <= {tuple(box) for box in more.corners}
        assert (more.corners >= 0).all() and (more.corners <= 64).all()


class TwiceFound(nn.Module):
    """A teacher that finds one object twice, another of a second class in the same place, and one elsewhere."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.52, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.1, 0.1]])
        logits = torch.tensor([[1.0, -9.0], [2.0, -9.0], [-9.0, 1.0], [0.5, -9.0]])
        return logits.expand(len(images), -1, -1), boxes.expand(len(images), -1, -1)


def test_pseudo_boxes_hold_no_object_twice():
    crops = [np.zeros((100, 200, 1), np.float32)] * 2
    for boxes in pseudo_boxes(TwiceFound(), crops, "cpu", 0.5, 4):
        np.testing.assert_allclose(boxes.corners, [[54, 25, 154, 75], [50, 25, 150, 75], [30, 15, 50, 25]], atol=1e-4)
        assert boxes.classes.tolist() == [0, 1, 0]
    assert [len(boxes) for boxes in pseudo_boxes(TwiceFound(), crops, "cpu", 0.7, 4)] == [2, 2]


def test_pseudo_mixup_and_pseudo_mosaic():
    box = Boxes(np.array([[8, 8, 24, 40]], np.float32), np.array([0]))
    crops = [(np.full((64, 64, 1), float(i), np.float32), box) for i in range(4)]
    made = mixed(crops)
    assert [pixels.shape for pixels, _ in made] == [(64, 64, 1)] * 3
    assert [pixels.mean() for pixels, _ in made] == [1.0, 2.0, 1.5]
    assert len(made[0][1]) == 2
    starts = np.array([[0, 0], [32, 0], [0, 32], [32, 32]])
    np.testing.assert_array_equal(made[2][1].corners - np.tile(starts, 2), [[4, 4, 12, 20]] * 4)
    assert mixed(crops[:1]) == crops[:1]
    assert mixed([(pixels, Boxes.none()) for pixels, _ in crops]) == []
    assert ramp_up(0, 100) < 0.01 and ramp_up(99, 100) == ramp_up(500, 100) == 1.0


def test_unlabelled_crops_count_more_and_more_until_the_last_fifth_of_the_steps(data):
    made = stage(data, steps=100, unlabelled_weight=2.0, ramp_up_epochs=5.0, batch_size=2, unlabelled_batch=2)
    found = learned(data)
    crops = BoxCrops(
        ImageReader(data.images),
        found.boxes(found.train),
        found.train,
        size=(64, 64),
        model_input=ModelInput(channels=1),
    )
    weights = [pseudo_weight(made, Batches(made, crops, [crops]), step) for step in range(100)]
    assert weights[:80] == sorted(weights[:80]) and weights[0] < 0.1 and weights[79] == 2
    assert weights[80:] == [0.0] * 20
    assert pseudo_weight(made, Batches(made, crops, []), 50) == 0


# --- resume -----------------------------------------------------------------------------------------------------------


def command(data: Data, out: Path, **options) -> list[str]:
    arguments = {"images": data.images, "truth": data.few, "encoder": data.encoder, "detector": out}
    arguments |= {"unlabelled": data.images, "unlabelled_batch": 4, "pseudo_threshold": 0.01, "ramp_up_epochs": 0.1}
    arguments |= {**QUICK, "steps": 6, "valid_every": 2, **options}
    words = [str(word) for name, value in arguments.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "components", "train_detector", *words]


def test_killed_and_started_again_it_ends_in_the_same_weights(data, tmp_path):
    """With labels and without."""
    assert_killed_training_resumes(lambda out: command(data, out), tmp_path, timeout=600)


def test_two_processes_share_the_batches(data, tmp_path):
    """Their loss is that of one process but for the noise of the denoising queries, which each draws for its crops."""
    options = {"steps": 2, "batch_size": 3, "valid_every": 2, "unlabelled_weight": 0.0}
    alone = train(data, tmp_path / "alone", truth=data.few, **options)
    words = command(data, tmp_path / "model", metrics=tmp_path / "metrics.json", **options)
    environment = {**os.environ, "CYTOLOOM_WORKERS": "2", "CYTOLOOM_THREADS": "2", "CYTOLOOM_DEVICE": "cpu"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "training in 2 processes" in done.stderr
    loss = json.loads((tmp_path / "metrics.json").read_text())["first_loss"]
    assert loss == pytest.approx(alone.metrics["first_loss"], rel=0.1)
