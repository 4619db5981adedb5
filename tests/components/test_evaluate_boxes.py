"""`evaluate` of boxes: its scores are COCO's on real boxes, of predictions and of a detector."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ingest_run import ingest, real, some
from real_boxes import BCCD_CLASSES, BCCD_SIZE, detections_like
from real_labels import wheel_nuclei
from small_segmentor import CONFIG, write_images, write_truth

from components.evaluate.component import Evaluate
from components.evaluate.main import run
from shared.artifacts.annotation import Annotation, ImageClass
from shared.artifacts.image_set import ImageReader
from shared.artifacts.kinds import ClassificationMetrics, LabelSet, Model, Scores
from shared.artifacts.label_set import LabelReader, LabelWriter
from shared.artifacts.manifest import seal
from shared.metrics.boxes import ALL, best_threshold, box_metrics, precision_recall
from shared.models.files import save_absent, save_model
from shared.models.segmentor import Segmentor
from shared.stage.declaration import Result
from shared.system.errors import ArtifactError, UserError

Boxes = dict[str, list[Annotation]]


class Smears:
    """Images of BCCD with their boxes, as `ingest` writes them."""

    def __init__(self, folder: Path) -> None:
        some(real("bccd/val"), folder / "in/val", "BloodImage_000[0-6]?.*")
        some(real("bccd/train"), folder / "in/train", "BloodImage_0000[1-4].*")
        done = ingest(folder / "in", folder / "out")
        self.images, self.labels = folder / "out/images", folder / "out/labels"
        self.truth = done.labels.annotations()
        self.val: Boxes = {key: self.truth[key] for key in done.images.keys("val")}


@pytest.fixture(scope="module")
def smears(tmp_path_factory) -> Smears:
    return Smears(tmp_path_factory.mktemp("smears"))


def write_predictions(folder: Path, boxes: Boxes, classes: dict[str, ImageClass] | None = None) -> Path:
    with LabelWriter(folder, "prediction") as writer:
        for key in sorted(boxes):
            writer.annotate(key, BCCD_SIZE, boxes[key])
        for key in sorted(classes or {}):
            writer.classify(key, classes[key])
    seal(folder, LabelSet)
    return folder


def score(out: Path, images: Path, truth: Path, **given: object) -> tuple[Result, dict, list[dict[str, str]]]:
    out.mkdir(parents=True)
    result = run(Evaluate(images=images, truth=truth, scores=out, **given))
    seal(out, Scores, skipped=result.skipped)
    with (out / "scores.csv").open(newline="") as stream:
        return result, json.loads((out / "scores.json").read_text()), list(csv.DictReader(stream))


def rounded(boxes: Boxes) -> Boxes:
    return {key: [replace(item, score=round(item.score, 4)) for item in items] for key, items in boxes.items()}


def test_scores_of_predictions_are_cocos(smears, tmp_path):
    found = detections_like(smears.val)
    predictions = write_predictions(tmp_path / "p", found)
    result, scores, rows = score(tmp_path / "s", smears.images, smears.labels, predictions=predictions)
    theirs = box_metrics(smears.val, found)  # equal to pycocotools, see its test
    assert {f"box_{name}": value for name, value in theirs.items()}.items() <= scores["overall"].items()
    assert 0.4 < scores["overall"]["box_ap50"] < 0.95
    assert result.metrics == scores["overall"] | {"images": len(smears.val)} and result.skipped is None
    curve = precision_recall(smears.val, found)[ALL]
    assert scores["overall"]["box_recall"] == pytest.approx(curve.recall[-1])
    assert scores["overall"]["box_precision"] == pytest.approx(curve.precision[-1])
    assert (scores["overall"]["box_best_threshold"], scores["overall"]["box_best_f1"]) == best_threshold(curve)
    assert scores["n"] == len(rows) == len(smears.val)
    assert scores["true_boxes"] == sum(map(len, smears.val.values()))
    assert scores["found_boxes"] == sum(map(len, found.values()))
    assert [row["image"] for row in rows] == sorted(smears.val)
    assert all(int(row["true_boxes"]) == len(smears.val[row["image"]]) for row in rows)


def test_perfect_boxes(smears, tmp_path):
    found = {key: [replace(item, score=0.9) for item in items] for key, items in smears.val.items()}
    result, _, rows = score(
        tmp_path / "s", smears.images, smears.labels, predictions=write_predictions(tmp_path / "p", found)
    )
    assert result.metrics["box_ap"] == result.metrics["box_f1"] == 1 and {row["box_f1"] for row in rows} == {"1"}
    matrix = np.array(result.classification.confusion)
    assert result.classification.labels == [*BCCD_CLASSES, "nothing"]
    assert matrix.trace() == matrix.sum() == sum(map(len, smears.val.values()))


def test_the_confusion_of_classes_counts_every_object_and_every_box(smears, tmp_path):
    found = detections_like(smears.val)
    result, _, _ = score(
        tmp_path / "s", smears.images, smears.labels, predictions=write_predictions(tmp_path / "p", found)
    )
    matrix = np.array(result.classification.confusion)
    for number, name in enumerate(BCCD_CLASSES):
        assert matrix[number].sum() == sum(item.category == name for items in smears.val.values() for item in items)
        assert matrix[:, number].sum() == sum(item.category == name for items in found.values() for item in items)
    assert matrix[:3, :3].trace() > matrix[:3, :3].sum() / 2 and matrix[3, 3] == 0


@pytest.mark.parametrize(("split", "expected"), [("auto", "val"), ("val", "val"), ("train", "train"), ("all", "")])
def test_the_split_is_chosen(smears, tmp_path, split, expected):
    found = detections_like(smears.truth)
    predictions = write_predictions(tmp_path / "p", found)
    result, scores, rows = score(tmp_path / "s", smears.images, smears.labels, predictions=predictions, split=split)
    keys = ImageReader(smears.images).keys(*([expected] if expected else []))
    assert [row["image"] for row in rows] == keys
    assert ("scored_on_training_labels" in scores) == (split in ("train", "all"))
    assert (f"Images of the split {expected}." in result.remark) == bool(expected)


def test_a_split_without_labels_is_refused(smears, tmp_path):
    predictions = write_predictions(tmp_path / "p", smears.val)
    with pytest.raises(UserError, match=r"--split test: it has no labelled image to score; give another, or auto"):
        score(tmp_path / "s", smears.images, smears.labels, predictions=predictions, split="test")


def test_only_training_images_are_flagged(smears, tmp_path):
    train = {key: items for key, items in smears.truth.items() if key not in smears.val}
    with LabelWriter(tmp_path / "truth", "truth") as writer:
        for key in sorted(train):
            writer.annotate(key, BCCD_SIZE, train[key])
    seal(tmp_path / "truth", LabelSet)
    predictions = write_predictions(tmp_path / "p", detections_like(train))
    result, scores, _ = score(tmp_path / "s", smears.images, tmp_path / "truth", predictions=predictions)
    assert scores["scored_on_training_labels"] is True and result.metrics["scored_on_training_labels"] == 1
    assert "may be too high" in result.remark


def test_a_class_absent_here_and_a_class_unknown_to_the_model(smears, tmp_path):
    found = detections_like(smears.val, ["RBC", "yeast"])
    found = {key: [i for i in items if i.category != "WBC"] for key, items in found.items()}
    predictions = write_predictions(tmp_path / "p", found)
    result, _, _ = score(tmp_path / "s", smears.images, smears.labels, predictions=predictions)
    assert "Classes without true objects here: yeast" in result.remark
    assert "Classes that are not known to the model: WBC" in result.remark
    assert result.metrics["box_ap50_WBC"] == 0 and "box_ap50_yeast" not in result.metrics
    assert "yeast" in result.classification.labels


def test_an_image_without_prediction_is_refused(smears, tmp_path):
    found = detections_like(smears.val)
    lost = min(found)
    del found[lost]
    with pytest.raises(ArtifactError, match=f"--predictions: .*no boxes of '{lost}'; run infer on the images"):
        score(tmp_path / "s", smears.images, smears.labels, predictions=write_predictions(tmp_path / "p", found))


def test_gated_predictions(smears, tmp_path):
    """A negative image holds nothing; one that is abstained from is not scored."""
    keys = sorted(smears.val)
    found = {key: items for key, items in detections_like(smears.val).items() if key not in keys[:2]}
    classes = {key: ImageClass("x", 0.9, outcome="positive") for key in keys}
    classes |= {keys[0]: ImageClass("y", 0.9, outcome="negative"), keys[1]: ImageClass("y", 0.5, outcome="abstain")}
    predictions = write_predictions(tmp_path / "p", found, classes)
    result, _, rows = score(tmp_path / "s", smears.images, smears.labels, predictions=predictions)
    assert [row["image"] for row in rows] == [keys[0], *keys[2:]]
    assert rows[0]["found_boxes"] == "0" and rows[0]["box_recall"] == "0"
    assert "1 more image is left out, because the classifier abstained from it" in result.remark
    found[keys[1]] = detections_like(smears.val)[keys[1]]  # infer went on all the same
    predictions = write_predictions(tmp_path / "p2", found, classes)
    assert len(score(tmp_path / "s2", smears.images, smears.labels, predictions=predictions)[2]) == len(keys)


def test_truth_of_another_set_is_refused(smears, tmp_path):
    with pytest.raises(ArtifactError, match=r"--truth: 'zebra' has labels, but is no image of"):
        score(
            tmp_path / "s",
            smears.images,
            write_predictions(tmp_path / "t", {"zebra": []}),
            predictions=write_predictions(tmp_path / "p", {"zebra": []}),
        )


def test_crowds_and_images_without_objects(smears, tmp_path):
    crowd = Annotation("RBC", (0, 0, 640, 480), 640 * 480, iscrowd=1)
    keys = sorted(smears.val)[:3]
    truth = {keys[0]: [crowd], keys[1]: [], keys[2]: smears.val[keys[2]]}
    found = {key: [replace(item, score=0.9) for item in smears.val[key]] for key in keys}
    found[keys[0]] = [replace(item, category="RBC") for item in found[keys[0]]]
    result, _, rows = score(
        tmp_path / "s",
        smears.images,
        write_predictions(tmp_path / "t", truth),
        predictions=write_predictions(tmp_path / "p", found),
    )
    assert [float(row["box_f1"]) for row in rows] == [1, 0, 1] and rows[0]["true_boxes"] == "0"
    matrix = np.array(result.classification.confusion)
    assert matrix[-1].sum() == len(found[keys[1]]), "boxes on the crowd are neither right nor wrong"


def test_fewer_detections_count(smears, tmp_path):
    predictions = write_predictions(tmp_path / "p", detections_like(smears.val))
    given = {"images": smears.images, "truth": smears.labels, "predictions": predictions}
    every = score(tmp_path / "all", **given)[0].metrics
    few = score(tmp_path / "few", **given, max_detections=3)[0].metrics
    assert few["box_ap"] < 0.7 * every["box_ap"] and few["box_f1"] == every["box_f1"]
    many = score(tmp_path / "some", **given, max_images=4)
    assert len(many[2]) == 4


def test_the_page_shows_tables_curves_and_pictures(smears, tmp_path):
    predictions = write_predictions(tmp_path / "p", detections_like(smears.val))
    result, scores, _ = score(tmp_path / "s", smears.images, smears.labels, predictions=predictions)
    html = result.page.html()
    assert html.count("data:image/") == 6 and html.count("<svg") == 1
    for name in ("box_ap", "box_ap50_WBC", "box_best_f1"):
        assert format(scores["overall"][name], ".4g") in html
    assert set(Evaluate.headlines) & set(result.metrics) == {"box_ap50", "box_ap"}
    assert "classification" in Evaluate.ports() and Evaluate.ports()["classification"].kind is ClassificationMetrics


# --- boxes of label images ----------------------------------------------------------------------------------------

IMAGE, LABELS = wheel_nuclei()
PARTS = {"a": np.s_[:160, :200], "b": np.s_[200:360, 100:300]}
MASKS = {key: np.ascontiguousarray(LABELS[part]) for key, part in PARTS.items()}


def nuclei_boxes(labels: np.ndarray) -> list[Annotation]:
    found = []
    for name in np.unique(labels)[1:]:
        y, x = np.nonzero(labels == name)
        box = (float(x.min()), float(y.min()), float(x.max() - x.min() + 1), float(y.max() - y.min() + 1))
        found.append(Annotation("nucleus", box, float(len(y)), score=0.8))
    return found


def nuclei(folder: Path) -> tuple[Path, Path]:
    images = {key: np.ascontiguousarray(IMAGE[part])[..., None] for key, part in PARTS.items()}
    return write_images(folder / "images", images), write_truth(folder / "truth", MASKS)


def test_the_boxes_of_instances_are_the_truth_where_there_are_no_others(tmp_path):
    images, truth = nuclei(tmp_path)
    found = {key: nuclei_boxes(labels)[:-3] for key, labels in MASKS.items()}
    count = sum(len(np.unique(labels)) - 1 for labels in MASKS.values())
    predictions = write_predictions(tmp_path / "p", found)
    result, scores, _ = score(tmp_path / "s", images, truth, predictions=predictions, split="all")
    assert scores["true_boxes"] == count and scores["found_boxes"] == count - 6
    assert result.metrics["box_recall"] == pytest.approx((count - 6) / count) and result.metrics["box_precision"] == 1
    assert "without their classes, since the truth has none" in result.remark


def test_predicted_instances_are_scored_as_boxes_where_the_truth_has_boxes_alone(tmp_path):
    images, _ = nuclei(tmp_path)
    truth = write_predictions(tmp_path / "boxes", {key: nuclei_boxes(labels) for key, labels in MASKS.items()})
    predictions = write_truth(tmp_path / "p", MASKS)
    result, _, _ = score(tmp_path / "s", images, truth, predictions=predictions, split="all")
    assert result.metrics["box_ap"] == 1 and "dice" not in result.metrics


def test_one_run_scores_classes_masks_and_boxes(tmp_path):
    images, _ = nuclei(tmp_path)
    with LabelWriter(tmp_path / "labels", "truth") as writer:
        for key in MASKS:
            writer.add(key, MASKS[key], "instances")
            writer.annotate(key, MASKS[key].shape, nuclei_boxes(MASKS[key]))
            writer.classify(key, "many" if key == "a" else "few")
    seal(tmp_path / "labels", LabelSet)
    with LabelWriter(tmp_path / "found", "prediction") as writer:
        for key in MASKS:
            writer.add(key, np.where(MASKS[key] == MASKS[key].max(), 0, MASKS[key]), "instances")
            writer.annotate(key, MASKS[key].shape, nuclei_boxes(MASKS[key]))
            writer.classify(key, ImageClass("many", 0.75, {"few": 0.25, "many": 0.75}))
    seal(tmp_path / "found", LabelSet)
    result, scores, rows = score(
        tmp_path / "s", images, tmp_path / "labels", predictions=tmp_path / "found", split="all"
    )
    count = sum(len(np.unique(labels)) - 1 for labels in MASKS.values())
    assert result.metrics["accuracy"] == 0.5 and result.metrics["box_ap"] == 1
    assert (
        result.metrics["recall"] == pytest.approx((count - 2) / count) and result.metrics["images"] == 2 == scores["n"]
    )
    assert result.classification.labels == ["few", "many"]
    assert list(rows[0])[:3] == ["image", "source", "true_class"] and {"dice", "box_f1"} <= set(rows[0])
    assert [row["image"] for row in rows] == ["a", "b"] and rows[1]["class"] == "many"
    titles = [f"<h2>{name}</h2>" in result.page.html() for name in ("Classes", "Masks", "Boxes")]
    assert all(titles) and (scores["true_objects"], scores["true_boxes"]) == (count, count)


# --- models -------------------------------------------------------------------------------------------------------


def write_detector(folder: Path) -> Path:
    """A detector of random weights; its threshold is the median of what it finds."""
    import torch

    from shared.models.box_predictor import BoxPredictor
    from shared.models.config import DetectorArchitecture, DetectorConfig, ModelInput, VitArchitecture
    from shared.models.detector import Detector

    torch.manual_seed(0)
    architecture = DetectorArchitecture(
        backbone=VitArchitecture.preset("nano", 16).model_copy(update={"depth": 1}),
        **{"classes": ("large", "small"), "queries": 20, "width": 32, "heads": 4, "feed_forward": 32},
        **{"decoder_layers": 1, "denoising": 0, "expansion": 0.5},
    )
    known = {"architecture": architecture, "input": ModelInput(channels=1, crop_px=96)}
    detector = Detector(DetectorConfig(**known, postprocessing={"score_threshold": 1.0}))
    state = {n: t + 5 * n.endswith("decoder.class_embed.0.bias") for n, t in detector.state_dict().items()}
    detector.load_state_dict(state)
    scores = BoxPredictor.of(detector, "cpu")(IMAGE[:160, :200, None]).scores
    settings = {"score_threshold": float(np.median(scores).round(4)) + 5e-5}
    save_model(folder, state, DetectorConfig(**known, postprocessing=settings), "# Detector")
    seal(folder, Model)
    return folder


def test_a_detector_scores_as_the_predictions_that_infer_writes(tmp_path):
    """The boxes from its threshold on; its average precision counts those below it too."""
    from components.infer.component import Infer
    from components.infer.main import run as infer

    images, truth = nuclei(tmp_path)
    detector = write_detector(tmp_path / "detector")
    places = {"predictions": tmp_path / "p", "files": tmp_path / "files"}
    for place in places.values():
        place.mkdir()
    infer(Infer(images=images, detector=detector, **places, formats=[]))
    seal(tmp_path / "p", LabelSet)
    found = LabelReader(tmp_path / "p").annotations()
    by_model = score(tmp_path / "model", images, truth, model=detector, split="all")
    by_predictions = score(tmp_path / "found", images, truth, predictions=tmp_path / "p", split="all")
    assert by_model[2] == by_predictions[2] and by_model[1]["found_boxes"] == sum(map(len, found.values())) > 5
    for name in ("box_f1", "box_precision", "box_recall"):
        assert by_model[0].metrics[name] == by_predictions[0].metrics[name]
    assert by_model[0].metrics["box_ar"] >= by_predictions[0].metrics["box_ar"]


def test_a_model_of_another_kind_than_the_truth_is_skipped(smears, tmp_path):
    segmentor = tmp_path / "segmentor"
    save_model(segmentor, Segmentor(CONFIG).state_dict(), CONFIG, "# Segmentor")
    seal(segmentor, Model)
    result, scores, rows = score(tmp_path / "s", smears.images, smears.labels, model=segmentor)
    assert "no image has a label image to score against; the truth holds annotations of" in result.skipped
    assert scores["overall"] == {} and rows == [] and result.classification is None


def test_an_absent_model_is_skipped(smears, tmp_path):
    save_absent(tmp_path / "model", "no boxes to learn from")
    seal(tmp_path / "model", Model)
    result, scores, _ = score(tmp_path / "s", smears.images, smears.labels, model=tmp_path / "model")
    assert "there is no model" in result.skipped and scores["overall"] == {} and result.metrics == {}


def test_predictions_that_hold_nothing_of_the_truth_are_skipped(smears, tmp_path):
    with LabelWriter(tmp_path / "p", "prediction") as writer:
        writer.classify(min(smears.val), "x", 0.5)
    seal(tmp_path / "p", LabelSet)
    result, _, _ = score(tmp_path / "s", smears.images, smears.labels, predictions=tmp_path / "p")
    assert "the predictions hold classes of 1 image, the truth annotations of" in result.skipped
