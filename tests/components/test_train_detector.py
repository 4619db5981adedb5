"""train_detector: it learns, resumes bit for bit, learns from what labels there are, and names errors."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from real_labels import ROOT
from small_detector_data import nuclei_boxes, quarters, write_boxes, write_encoder, write_images, write_masks

from components.train_detector.batches import Batches
from components.train_detector.component import TrainDetector
from components.train_detector.initial_detector import chosen_queries, initial_detector
from components.train_detector.labelled_images import (
    LabelledImages,
    NothingToLearn,
    as_boxes,
    labelled_images,
    unlabelled_images,
)
from components.train_detector.loop import optimiser_of
from components.train_detector.main import run
from components.train_detector.objective import Objective
from components.train_detector.pseudo_boxes import mixed, pseudo_boxes, ramp_up
from components.train_detector.published_detector import published_detector
from components.train_detector.resnet_weights import IMAGENET_MEAN, IMAGENET_STD, load_resnet_weights
from components.train_detector.training_record import TrainingRecord
from shared.artifacts.annotation import Annotation
from shared.artifacts.image_set import ImageReader
from shared.artifacts.kinds import Model
from shared.artifacts.manifest import read_manifest, seal
from shared.data.box_crops import BoxCrops
from shared.data.boxes import Boxes
from shared.imaging.resize import resize
from shared.instances.label_image import relabel
from shared.metrics.boxes import ALL, best_threshold, precision_recall
from shared.models.backbones.resnet import ResNet
from shared.models.box_predictor import BoxPredictor
from shared.models.config import DetectorPostProcessing, ModelInput, ResNetArchitecture
from shared.models.detector import Detector
from shared.models.files import is_absent, save_absent
from shared.models.load import load_model
from shared.system.errors import ArtifactError, UserError

QUICK = {"crop": 64, "batch_size": 2, "steps": 2, "valid_every": 1}
VALID = ("part00", "part05", "part10", "part15")


@dataclass(frozen=True)
class Data:
    """Artifacts of the nuclei: 12 images of split train, 4 of split val."""

    root: Path
    images: Path
    truth: Path
    few: Path
    """Boxes of six training images and the held-out ones."""
    encoder: Path
    boxes: dict[str, list[Annotation]]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = os.environ.get("CYTOLOOM_THREADS")
    os.environ["CYTOLOOM_THREADS"] = "1"  # a loaded machine is much slower with more
    yield
    os.environ.pop("CYTOLOOM_THREADS") if before is None else os.environ.update(CYTOLOOM_THREADS=before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root, parts = tmp_path_factory.mktemp("detector"), quarters()
    boxes = {key: nuclei_boxes(labels) for key, (_, labels) in parts.items()}
    images = write_images(
        root / "images", {key: image for key, (image, _) in parts.items()}, dict.fromkeys(VALID, "val"), {}
    )
    some = {key: boxes[key] for key in (*VALID, *sorted(set(boxes) - set(VALID))[:6])}
    truth, few = write_boxes(root / "truth", boxes), write_boxes(root / "few", some)
    return Data(root, images, truth, few, write_encoder(root / "encoder"), boxes)


def train(data: Data, folder: Path, **options):
    folder.mkdir(parents=True)
    given = {"images": data.images, "truth": data.truth, "encoder": data.encoder, **QUICK, **options}
    result = run(TrainDetector(detector=folder, **given))
    seal(folder, Model, skipped=result.skipped)
    return result


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


# --- what is learned from ---------------------------------------------------------------------------------------------


def stage(data: Data, **options) -> TrainDetector:
    given = {"images": data.images, "truth": data.truth, "encoder": data.encoder, "detector": data.root, **options}
    return TrainDetector(**given)


def learned(data: Data, **options) -> LabelledImages:
    made = stage(data, **options)
    return labelled_images(made, ImageReader(made.images))


def test_labels_are_boxes_where_there_are_any(data, tmp_path):
    masks = {key: labels for key, (_, labels) in quarters().items()}
    pseudo, instances = write_masks(tmp_path / "pseudo", masks), write_masks(tmp_path / "truth", masks, "truth")
    empty = write_boxes(tmp_path / "none", {})
    not_train = write_masks(tmp_path / "val", {key: masks[key] for key in VALID}, "truth")
    found = learned(data, pseudo=pseudo)
    assert (found.classes, found.origin) == (("large", "small"), "boxes")
    assert found.valid == list(VALID) and len(found.train) == 12
    for options, origin in (
        ({"pseudo": pseudo, "labels": "pseudo"}, "pseudo-masks"),
        ({"truth": empty, "pseudo": pseudo}, "pseudo-masks"),
        ({"truth": not_train, "pseudo": pseudo}, "pseudo-masks"),
        ({"truth": instances, "pseudo": pseudo}, "label images"),
    ):
        found = learned(data, **options)
        assert (found.classes, found.origin) == (("cell",), origin)
        assert {key: [one.bbox for one in items] for key, items in found.objects.items()} == {
            key: [one.bbox for one in items] for key, items in data.boxes.items()
        }
    with pytest.raises(NothingToLearn, match="--truth"):
        learned(data, truth=empty, pseudo=pseudo, labels="boxes")
    with pytest.raises(UserError, match="--labels"):
        learned(data, labels="pseudo")


def test_uncertain_instances_are_ignored(data, tmp_path):
    """Neither learned nor learned as background; by the confidence of pixels, or by the scores of predictions."""
    masks = {key: relabel(labels) for key, (_, labels) in quarters().items()}
    conf = {key: np.where(mask == 1, 50, 255).astype(np.uint8) for key, mask in masks.items()}
    scores = {key: np.where(np.arange(mask.max()) == 0, 0.2, 0.9) for key, mask in masks.items()}
    for name, options in (("conf", {"conf": conf}), ("scores", {"scores": scores})):
        found = learned(data, labels="pseudo", pseudo=write_masks(tmp_path / name, masks, **options))
        for key, mask in masks.items():
            assert [one.iscrowd for one in found.objects[key]] == [1] + [0] * (int(mask.max()) - 1)
            boxes = as_boxes(found.objects[key], found.classes)
            assert len(boxes) == mask.max() - 1 and len(boxes.ignored) == 1


def test_held_out_images_are_whole_groups_where_split_val_has_none(data, tmp_path):
    parts = quarters()
    groups = {key: f"plate{i // 3}" for i, key in enumerate(sorted(parts))}
    images = write_images(tmp_path / "images", {key: image for key, (image, _) in parts.items()}, {}, groups)
    found = learned(data, images=images, valid_share=0.3)
    held_out = {groups[key] for key in found.valid}
    assert len(held_out) == 2 and not held_out & {groups[key] for key in found.train}
    assert sorted(found.train + found.valid) == sorted(parts)
    rare = {key: items if key in ("part03", "part07") else [] for key, items in data.boxes.items()}
    found = learned(data, images=images, truth=write_boxes(tmp_path / "rare", rare))
    assert {"part03", "part07"} == {key for key in found.train + found.valid if found.objects[key]}
    assert found.counts(found.train).total() and found.counts(found.valid).total()


def test_one_group_with_objects_is_trained_on_and_scored(data, tmp_path, caplog):
    boxes = {key: found if key == "part01" else [] for key, found in data.boxes.items()}
    found = learned(data, truth=write_boxes(tmp_path / "truth", boxes))
    assert found.train == found.valid and "part01" in found.train
    assert "one group alone has objects" in caplog.text


def test_a_class_that_a_split_lacks_is_named(data, tmp_path, caplog):
    boxes = {
        key: [replace(one, category="rare") if key == where and i == 0 else one for i, one in enumerate(found)]
        for where in ("part01",)
        for key, found in data.boxes.items()
    }
    boxes["part00"] = [replace(boxes["part00"][0], category="late"), *boxes["part00"][1:]]
    found = learned(data, truth=write_boxes(tmp_path / "truth", boxes))
    assert found.classes == ("large", "rare", "small")
    assert "'rare': no object in the held-out images" in caplog.text
    assert "'late': no object in the training images" in caplog.text
    assert len(as_boxes(found.objects["part00"], found.classes)) == len(boxes["part00"]) - 1


def test_without_labels_it_fails_or_skips(data, tmp_path):
    nothing = write_boxes(tmp_path / "nothing", {})
    no_objects = write_boxes(tmp_path / "no_objects", {key: [] for key in data.boxes})
    crowds = {key: [replace(one, iscrowd=1) for one in found] for key, found in data.boxes.items()}
    for truth in (nothing, no_objects, write_boxes(tmp_path / "crowds", crowds)):
        with pytest.raises(UserError, match="annotate boxes"):
            train(data, tmp_path / f"fails-{truth.name}", truth=truth)
        result = train(data, tmp_path / f"skips-{truth.name}", truth=truth, without_labels="skip")
        assert "annotate boxes" in result.skipped and is_absent(tmp_path / f"skips-{truth.name}")
    only_val = {key: found for key, found in data.boxes.items() if key in VALID}
    with pytest.raises(UserError, match="split train"):
        train(data, tmp_path / "only_val", truth=write_boxes(tmp_path / "truth", only_val))


def test_unlabelled_images_are_those_without_labels(data, tmp_path):
    few = {key: data.boxes[key] for key in ("part00", "part01", "part02")}
    truth = write_boxes(tmp_path / "truth", few)
    more = {key: image for key, (image, _) in quarters().items()}
    more |= {"other": more["part03"] + 1}
    images = write_images(tmp_path / "images", more, {"part04": "test"}, {})
    options = {"truth": truth, "unlabelled": images}
    made, reader = stage(data, **options), ImageReader(data.images)
    found = labelled_images(made, reader)
    (first, keys), (second, others) = unlabelled_images(made, reader, found)
    assert keys == sorted(set(data.boxes) - {*VALID, "part01", "part02"}) and first is reader
    assert others == ["other", "part05", "part10", "part15"] and len(second) == 17  # split val of the first set only
    assert not unlabelled_images(stage(data, truth=truth), reader, found)
    assert not unlabelled_images(stage(data, **options, unlabelled_weight=0.0), reader, found)


# --- the network ------------------------------------------------------------------------------------------------------


def test_an_encoder_that_does_not_fit_is_refused(data, tmp_path):
    colour = {key: np.repeat(image, 5, axis=2) for key, (image, _) in quarters().items()}
    images = write_images(tmp_path / "images", colour, {}, {})
    encoder = write_encoder(tmp_path / "encoder", channels=3)
    with pytest.raises(UserError, match="--encoder: it takes 3 channels, the images have 5"):
        train(data, tmp_path / "channels", images=images, encoder=encoder)
    with pytest.raises(ArtifactError, match="kind 'encoder'"):
        save_absent(tmp_path / "absent", "nothing was there")
        seal(tmp_path / "absent", Model)
        train(data, tmp_path / "kind", encoder=tmp_path / "absent")


def test_queries_follow_from_the_densest_tile(data, caplog):
    found = learned(data)
    model_input = ModelInput(channels=1, crop_px=128)
    fullest = max(len(data.boxes[key]) for key in found.train)
    assert chosen_queries(stage(data, crop=128), found, model_input) == 50
    few = chosen_queries(stage(data, crop=128, queries=3), found, model_input)
    assert few == 3 and f"{fullest} objects in a tile of 128 px, more than the 3 queries" in caplog.text
    with pytest.raises(UserError, match="--queries: 85 exceed the 84 positions"):
        chosen_queries(stage(data, crop=64, queries=85), found, ModelInput(channels=1, crop_px=64))
    dense = replace(found, objects={key: items * 10 for key, items in found.objects.items()})
    wanted = chosen_queries(stage(data, crop=128), dense, model_input)
    assert 1.5 * fullest * 10 <= wanted <= 1.5 * fullest * 10 + 10


@pytest.mark.parametrize(("zoom", "expected"), [(1, 1), (2, 2), (5, 4), (20, 4)])
def test_images_of_large_objects_are_downsampled(data, tmp_path, zoom, expected):
    """Nuclei of about 25 px, as if they were larger."""
    boxes = {
        key: [replace(one, bbox=tuple(zoom * side for side in one.bbox)) for one in found]
        for key, found in data.boxes.items()
    }
    reader, truth = ImageReader(data.images), write_boxes(tmp_path / "truth", boxes)
    detector = initial_detector(stage(data, crop=64), reader, learned(data, truth=truth))
    given = initial_detector(stage(data, crop=64, downsample="2"), reader, learned(data))
    assert (detector.config.input.downsample, given.config.input.downsample) == (expected, 2)


def test_rates_of_the_encoder(data):
    """Frozen, or slower layer by layer towards the input."""
    detector = initial_detector(stage(data, crop=64), ImageReader(data.images), learned(data))
    encoder = detector.encoder
    rates = {}
    for group in optimiser_of(stage(data, encoder_rate=0.5, layer_decay=0.8, learning_rate=1.0), detector).param_groups:
        rates |= {id(parameter): group.get("scale", 1.0) for parameter in group["params"]}
    assert len(rates) == len(list(detector.parameters()))
    depth = len(encoder.blocks)
    assert rates[id(encoder.patch_embed.proj.weight)] == pytest.approx(0.5 * 0.8 ** (depth + 1))
    assert rates[id(encoder.blocks[-1].mlp.fc1.weight)] == pytest.approx(0.5 * 0.8)
    assert rates[id(encoder.norm.weight)] == 0.5
    assert {rates[id(parameter)] for parameter in detector.transformer.parameters()} == {1.0}
    optimiser_of(stage(data, encoder_rate=0.0), detector)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_a_resnet_is_trained_on_the_encoders_input(data, tmp_path):
    result = train(data, tmp_path / "resnet", backbone="resnet18", steps=1)
    detector = load_model(tmp_path / "resnet", Detector)
    assert detector.encoder is None and detector.config.architecture.backbone.depth == 18
    assert result.metrics["steps"] == 1


def test_published_weights_of_a_resnet_give_its_features(data, tmp_path):
    """torchvision's network with its own standardisation of colours, inside, where no padding reaches."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    published = torchvision.models.resnet18().eval()
    for module in published.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    ours = ResNet(ResNetArchitecture(depth=18, norm="frozen"), 3).eval()
    load_resnet_weights(ours, str(tmp_path / "resnet18.pth"))
    x = torch.rand(1, 3, 64, 64)
    standardised = (x - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    with torch.no_grad():
        expected, found = (net.bn1(net.conv1(images)) for net, images in ((published, standardised), (ours, x)))
        torch.testing.assert_close(found[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-4, rtol=1e-4)
        rest = published.layer2(published.layer1(found))
        torch.testing.assert_close(ours.layer2(ours.layer1(found)), rest)
    for options, problem in (
        ({"backbone": "resnet34"}, "does not match ResNet 34"),
        ({}, "they are for a ResNet"),
    ):
        with pytest.raises(UserError, match=problem):
            weights = {"backbone_weights": str(tmp_path / "resnet18.pth")}
            initial_detector(stage(data, crop=64, **options, **weights), ImageReader(data.images), learned(data))


def test_published_weights_of_a_detector_give_its_boxes(data, tmp_path):
    """transformers' own model of the published shape, of random weights, saved as it saves them."""
    from transformers.models.rt_detr.configuration_rt_detr_resnet import RTDetrResNetConfig
    from transformers.models.rt_detr_v2 import RTDetrV2Config, RTDetrV2ForObjectDetection

    resnet = RTDetrResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2] * 4, layer_type="basic", out_indices=[2, 3, 4]
    )
    settings = {"encoder_in_channels": [128, 256, 512], "hidden_expansion": 0.5, "decoder_layers": 2}
    torch.manual_seed(0)
    published = RTDetrV2ForObjectDetection(RTDetrV2Config(backbone_config=resnet, num_queries=50, **settings)).eval()
    for module in published.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    published.save_pretrained(tmp_path)
    ours = published_detector(
        str(tmp_path / "model.safetensors"), ("cell",), ModelInput(channels=3), DetectorPostProcessing(), 50
    ).eval()
    assert (ours.config.architecture.backbone.depth, ours.config.architecture.decoder_layers) == (18, 2)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        maps = [features for features, _ in ours.backbone.feature_maps(x)]
        theirs = published.model.backbone(x, torch.ones(1, 64, 64))
        for found, (expected, _) in zip(maps, theirs, strict=True):
            assert expected.std() > 1e-3
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
        ours.transformer.enc_score_head = published.model.enc_score_head  # the classes are those of the weights then
        ours.transformer.decoder.class_embed = published.model.decoder.class_embed
        logits, boxes = ours(x)
        expected = published(x)
    torch.testing.assert_close(logits, expected.logits, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(boxes, expected.pred_boxes, atol=1e-4, rtol=1e-3)
    with pytest.raises(UserError, match="not RT-DETRv2"):
        torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
        weights = {"weights": str(tmp_path / "other.pth")}
        initial_detector(stage(data, crop=64, **weights), ImageReader(data.images), learned(data))


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


def test_pseudo_mixup_and_pseudo_mosaic():
    box = Boxes(np.array([[8, 8, 24, 40]], np.float32), np.array([0]))
    crops = [(np.full((64, 64, 1), float(i), np.float32), box) for i in range(4)]
    made = mixed(crops)
    assert [pixels.shape for pixels, _ in made] == [(64, 64, 1)] * 3
    assert [pixels.mean() for pixels, _ in made] == [1.0, 2.0, 1.5]
    assert len(made[0][1]) == 2
    starts = np.array([[0, 0], [32, 0], [0, 32], [32, 32]])
    np.testing.assert_array_equal(made[2][1].corners - np.tile(starts, 2), [[4, 4, 12, 20]] * 4)
    assert mixed([(pixels, Boxes.none()) for pixels, _ in crops]) == []
    assert ramp_up(0, 100) < 0.01 and ramp_up(99, 100) == ramp_up(500, 100) == 1.0


# --- resume -----------------------------------------------------------------------------------------------------------


def command(data: Data, out: Path, **options) -> list[str]:
    arguments = {"images": data.images, "truth": data.few, "encoder": data.encoder, "detector": out}
    arguments |= {"unlabelled": data.images, "unlabelled_batch": 4, "pseudo_threshold": 0.01, "ramp_up_epochs": 0.1}
    arguments |= {**QUICK, "steps": 6, "valid_every": 2, **options}
    words = [str(word) for name, value in arguments.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "components", "train_detector", *words]


def test_killed_and_started_again_it_ends_in_the_same_weights(data, tmp_path):
    """kill -9 once a checkpoint is there, with labels and without; the same command goes on from it."""
    environment = {**os.environ, "CYTOLOOM_CHECKPOINTS": str(tmp_path / "kept"), "CYTOLOOM_CHECKPOINT_SECONDS": "0"}
    options = {"cwd": ROOT, "env": environment, "stderr": subprocess.PIPE, "text": True}
    unbroken = subprocess.run(command(data, tmp_path / "unbroken"), **options, timeout=600)
    assert unbroken.returncode == 0, unbroken.stderr
    killed = subprocess.Popen(command(data, tmp_path / "resumed"), **options)
    deadline = time.monotonic() + 600
    while not list((tmp_path / "kept").rglob("checkpoint.pt")) and killed.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "resumed").exists()
    again = subprocess.run(command(data, tmp_path / "resumed"), **options, timeout=600)
    assert again.returncode == 0, again.stderr
    assert "resuming from the checkpoint" in again.stderr
    assert read_manifest(tmp_path / "resumed").digest == read_manifest(tmp_path / "unbroken").digest


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
