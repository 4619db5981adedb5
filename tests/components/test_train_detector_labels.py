"""train_detector: which labels are learned from, which images are held out, and errors that name the remedy."""

from dataclasses import replace

import numpy as np
import pytest
from detector_training import VALID, Data, learned, stage, train, write_data
from small_detector_data import quarters, write_boxes, write_images, write_masks

from components.train_detector.component import TrainDetector
from components.train_detector.labelled_images import (
    NothingToLearn,
    as_boxes,
    labelled_images,
    unlabelled_images,
)
from shared.artifacts.image_set import ImageReader
from shared.instances.label_image import relabel
from shared.models.files import is_absent
from shared.system.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return write_data(tmp_path_factory.mktemp("detector"))


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
    assert "one group alone has objects" in caplog.text and not found.held_out


def test_scores_on_training_images_are_named_so(data, tmp_path):
    groups = dict.fromkeys(data.boxes, "movie")
    images = write_images(tmp_path / "images", {key: image for key, (image, _) in quarters().items()}, {}, groups)
    result = train(data, tmp_path / "d", images=images, steps=2, batch_size=2, valid_every=2)
    assert {"training_ap", "training_f1", "score_threshold"} <= set(result.metrics)
    assert not set(TrainDetector.headlines) & set(result.metrics), "they would be taken for results"
    card, page = (tmp_path / "d/MODEL_CARD.md").read_text(), result.page.html()
    assert "No image is held out" in card and "scores are too high" in page and "scores are too high" in result.remark


def test_a_class_that_a_split_lacks_is_named(data, tmp_path, caplog):
    boxes = {
        key: [replace(one, category="rare") if key == where and i == 0 else one for i, one in enumerate(found)]
        for where in ("part01",)
        for key, found in data.boxes.items()
    }
    boxes["part00"] = [replace(boxes["part00"][0], category="late"), *boxes["part00"][1:]]
    found = learned(data, truth=write_boxes(tmp_path / "truth", boxes))
    assert found.classes == ("large", "rare", "small")
    assert "'rare': no object in the images that are scored" in caplog.text
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
