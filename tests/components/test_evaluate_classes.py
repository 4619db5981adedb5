"""`evaluate` of classes: its scores are scikit-learn's, of a classifier and of predictions."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ingest_run import ingest, real, some
from real_labels import wheel_nuclei
from sklearn.metrics import average_precision_score, balanced_accuracy_score, confusion_matrix, roc_auc_score, roc_curve
from small_classifier import CLASSES, trained, write_classifier
from small_segmentor import write_encoder, write_images

from components.evaluate.component import Evaluate
from components.evaluate.main import run
from shared.artifacts.annotation import ImageClass
from shared.artifacts.image_set import ImageWriter
from shared.artifacts.kinds import ImageSet, LabelSet, Scores
from shared.artifacts.label_set import LabelWriter
from shared.artifacts.manifest import seal, verify
from shared.models.class_predictor import ClassPredictor
from shared.stage.declaration import Result
from shared.system.errors import ArtifactError, UserError

COUNT = 90


def hard_crops(count: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Crops (48, 48, 1) at any place, and whether a fifth of each shows nuclei: many are neither here nor there."""
    image, labels = wheel_nuclei()
    places = np.random.default_rng(5).integers([256, 0], [464, 464], (count, 2))
    parts = [np.s_[y : y + 48, x : x + 48] for y, x in places]
    return [image[part][..., None] for part in parts], np.array(
        [int((labels[part] > 0).mean() > 0.2) for part in parts]
    )


class Nuclei:
    """Crops of real nuclei and of background, of the split test; two more images are of val and train."""

    def __init__(self, folder: Path) -> None:
        found, truth = hard_crops(COUNT)
        self.keys = [f"c{i:03}" for i in range(COUNT)]
        self.pixels = dict(zip(self.keys, found, strict=True))
        self.classes = dict(zip(self.keys, (CLASSES[k] for k in truth), strict=True))
        self.images, self.labels = folder / "images", write_classes(folder / "labels", self.classes | {"v": CLASSES[0]})
        with ImageWriter(self.images) as writer:
            for key in self.keys:
                writer.add(key, self.pixels[key], source=f"{key}.tif", split="test")
            for key, split in (("t", "train"), ("v", "val")):
                writer.add(key, found[0], source=f"{key}.tif", split=split)
        seal(self.images, ImageSet)


def write_classes(folder: Path, classes: dict[str, str | ImageClass]) -> Path:
    with LabelWriter(folder, "truth") as writer:
        for key in sorted(classes):
            writer.classify(key, classes[key])
    seal(folder, LabelSet)
    return folder


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory) -> Nuclei:
    return Nuclei(tmp_path_factory.mktemp("nuclei"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def probability(nuclei) -> np.ndarray:
    return ClassPredictor.of(trained(), "cpu")(list(nuclei.pixels.values())).probability


def score(out: Path, images: Path, truth: Path, **given: object) -> tuple[Result, dict, list[dict[str, str]]]:
    out.mkdir(parents=True)
    result = run(Evaluate(images=images, truth=truth, scores=out, **given))
    seal(out, Scores, skipped=result.skipped)
    with (out / "scores.csv").open(newline="") as stream:
        return result, json.loads((out / "scores.json").read_text()), list(csv.DictReader(stream))


def predicted(nuclei: Nuclei, probability: np.ndarray, **fields: object) -> dict[str, ImageClass]:
    """What `infer` writes of these probabilities (n, 2)."""
    rows = zip(nuclei.keys, probability, strict=True)
    chances = {key: dict(zip(CLASSES, row, strict=True)) for key, row in rows}
    return {k: ImageClass(max(c, key=c.get), float(max(c.values())), c, **fields) for k, c in chances.items()}


def test_scores_of_a_classifier_are_sklearns(nuclei, model, probability, tmp_path):
    result, scores, rows = score(tmp_path / "s", nuclei.images, nuclei.labels, model=model)
    true = np.array([CLASSES.index(nuclei.classes[key]) for key in nuclei.keys])
    theirs = {
        "accuracy": (probability.argmax(axis=1) == true).mean(),
        "balanced_accuracy": balanced_accuracy_score(true, probability.argmax(axis=1)),
        "auroc": roc_auc_score(true, probability[:, 1]),
        "average_precision": average_precision_score(true, probability[:, 1]),
    }
    assert 0.6 < theirs["accuracy"] < 1 and set(scores["overall"]) == {*theirs, "ece"}
    for name, value in theirs.items():
        assert scores["overall"][name] == pytest.approx(value, abs=1e-9), name
    assert result.metrics == scores["overall"] | {"images": COUNT}
    assert scores["n"] == COUNT and scores["images_of_positive"] == (true == 1).sum()
    assert [row["image"] for row in rows] == nuclei.keys, "test images alone, though val has one too"
    for row, chance in zip(rows, probability, strict=True):
        assert row["class"] == CLASSES[chance.argmax()] and row["true_class"] == nuclei.classes[row["image"]]
        assert float(row["score"]) == pytest.approx(chance.max(), rel=1e-5) and float(row["distance"]) > 0
        assert row["outcome"] == ""


def test_the_confusion_matrix_and_the_roc_curve_are_sklearns(nuclei, model, probability, tmp_path):
    found = score(tmp_path / "s", nuclei.images, nuclei.labels, model=model)[0].classification
    true = np.array([CLASSES.index(nuclei.classes[key]) for key in nuclei.keys])
    assert found.labels == list(CLASSES)
    assert found.confusion == confusion_matrix(true, probability.argmax(axis=1)).tolist()
    theirs = np.stack(roc_curve(true, probability[:, 1].astype(float), drop_intermediate=False), axis=1)
    assert np.allclose(found.roc[1:], theirs[1:], atol=1e-9)


def test_predictions_score_as_the_model_that_made_them(nuclei, model, probability, tmp_path):
    by_model = score(tmp_path / "model", nuclei.images, nuclei.labels, model=model)
    found = write_classes(tmp_path / "p", predicted(nuclei, probability))
    by_predictions = score(tmp_path / "found", nuclei.images, nuclei.labels, predictions=found)
    for name, value in by_model[0].metrics.items():
        assert by_predictions[0].metrics[name] == pytest.approx(value, abs=1e-7), name
    columns = ("image", "class", "true_class", "score", "true_class_score")
    assert [[row[name] for name in columns] for row in by_model[2]] == [
        [row[name] for name in columns] for row in by_predictions[2]
    ]


def test_a_runtime_needs_its_file(nuclei, model, tmp_path):
    with pytest.raises(UserError, match=r"--runtime onnx: .*model.onnx: no such file; run export_model first"):
        score(tmp_path / "s", nuclei.images, nuclei.labels, model=model, runtime="onnx")


def test_the_same_scores_again(nuclei, model, tmp_path):
    digests = set()
    for name in ("one", "two"):
        score(tmp_path / name, nuclei.images, nuclei.labels, model=model)
        digests.add(verify(tmp_path / name).digest)
    assert len(digests) == 1


def test_answers_of_the_gate(nuclei, probability, tmp_path):
    """The share that is answered, and the share of the answers that is wrong."""
    found, middle = {}, float(np.quantile(probability.max(axis=1), 0.3, method="lower"))
    for key, item in predicted(nuclei, probability).items():
        outcome = "abstain" if item.score < middle else item.name
        found[key] = ImageClass(item.name, item.score, item.probabilities, outcome, "why", 1.0)
    predictions = write_classes(tmp_path / "p", found)
    result, scores, rows = score(tmp_path / "s", nuclei.images, nuclei.labels, predictions=predictions)
    sure = probability.max(axis=1) >= middle
    true = np.array([CLASSES.index(nuclei.classes[key]) for key in nuclei.keys])
    assert 0.1 < sure.mean() < 1 and scores["overall"]["answered"] == pytest.approx(sure.mean())
    wrong = probability.argmax(axis=1)[sure] != true[sure]
    assert scores["overall"]["answered_error"] == pytest.approx(wrong.mean())
    assert scores["n"] == COUNT and {row["outcome"] for row in rows} == {"positive", "negative", "abstain"}
    html = result.page.html()
    assert "<h3>Outcomes</h3>" in html and "; abstain" in html


def test_classes_without_probabilities(nuclei, probability, tmp_path):
    names = {key: item.name for key, item in predicted(nuclei, probability).items()}
    predictions = write_classes(tmp_path / "p", names)
    result, scores, rows = score(tmp_path / "s", nuclei.images, nuclei.labels, predictions=predictions)
    right = np.mean([names[key] == nuclei.classes[key] for key in nuclei.keys])
    assert set(scores["overall"]) == {"accuracy", "balanced_accuracy"} and scores["overall"]["accuracy"] == right
    assert result.classification.roc == [] and {row["score"] for row in rows} == {""}
    assert "Reliability" not in result.page.html()


def test_a_score_stands_for_the_probabilities_of_two_classes(nuclei, probability, tmp_path):
    full = predicted(nuclei, probability)
    few = {key: ImageClass(item.name, item.score) for key, item in full.items()}
    made = [
        score(tmp_path / f"s-{n}", nuclei.images, nuclei.labels, predictions=write_classes(tmp_path / n, one))[0]
        for n, one in (("full", full), ("few", few))
    ]
    assert made[1].metrics["auroc"] == pytest.approx(made[0].metrics["auroc"], abs=0.01)
    assert made[1].metrics["ece"] == pytest.approx(made[0].metrics["ece"], abs=1e-3)


def test_more_than_two_classes(nuclei, tmp_path):
    rng = np.random.default_rng(0)
    names = ["a", "b", "c"]
    true = {key: names[i % 3] for i, key in enumerate(nuclei.keys)}
    chances = rng.dirichlet([1, 1, 1], COUNT) * 0.5
    chances[np.arange(COUNT), np.arange(COUNT) % 3] += 0.5 * (rng.random(COUNT) < 0.5)
    chances /= chances.sum(axis=1, keepdims=True)
    found = {
        key: ImageClass(names[row.argmax()], row.max(), dict(zip(names, row, strict=True)))
        for key, row in zip(nuclei.keys, chances, strict=True)
    }
    predictions = write_classes(tmp_path / "p", found)
    result, _, _ = score(tmp_path / "s", nuclei.images, write_classes(tmp_path / "t", true), predictions=predictions)
    order = np.arange(COUNT) % 3
    theirs = roc_auc_score(order, chances, multi_class="ovr")
    assert result.metrics["auroc"] == pytest.approx(theirs, abs=1e-6) and 0.55 < theirs < 0.95
    assert result.classification.confusion == confusion_matrix(order, chances.argmax(axis=1)).tolist()
    assert result.classification.roc == [] and result.page.html().count("<svg") == 2


def test_one_class_only_and_a_class_that_the_model_does_not_know(nuclei, model, tmp_path):
    positive = {key: name for key, name in nuclei.classes.items() if name == "positive"}
    result, _, _ = score(tmp_path / "one", nuclei.images, write_classes(tmp_path / "t1", positive), model=model)
    assert "auroc" not in result.metrics and 0 < result.metrics["accuracy"] <= 1
    assert result.classification.roc == []
    some_else = nuclei.classes | dict.fromkeys(nuclei.keys[:9], "debris")
    result, _, rows = score(tmp_path / "two", nuclei.images, write_classes(tmp_path / "t2", some_else), model=model)
    assert "Classes that are not known to the model: debris; their images count as wrong." in result.remark
    assert result.classification.labels == ["negative", "positive", "debris"]
    assert sum(result.classification.confusion[2]) == 9 and {row["true_class_score"] for row in rows[:9]} == {"0"}
    known = [row["class"] == row["true_class"] for row in rows]
    assert result.metrics["accuracy"] == pytest.approx(np.mean(known))


@pytest.mark.parametrize(("split", "keys"), [("val", ["v"]), ("all", None)])
def test_the_split_is_chosen(nuclei, model, tmp_path, split, keys):
    result, _, rows = score(tmp_path / "s", nuclei.images, nuclei.labels, model=model, split=split)
    assert [row["image"] for row in rows] == (keys or [*nuclei.keys, "v"])
    assert ("split val" in result.remark) == (split == "val")


def test_a_split_without_classes(nuclei, model, tmp_path):
    """Refused where it is asked for; auto takes the next one, and flags the training images."""
    with pytest.raises(UserError, match="--split train: it has no labelled image to score"):
        score(tmp_path / "s", nuclei.images, nuclei.labels, model=model, split="train")
    of_val = write_classes(tmp_path / "t1", {"v": "positive", "t": "negative"})
    result, _, rows = score(tmp_path / "val", nuclei.images, of_val, model=model)
    assert [row["image"] for row in rows] == ["v"] and "scored_on_training_labels" not in result.metrics
    of_train = write_classes(tmp_path / "t2", {"t": "negative"})
    result, scores, rows = score(tmp_path / "train", nuclei.images, of_train, model=model)
    assert [row["image"] for row in rows] == ["t"] and scores["scored_on_training_labels"] is True


@pytest.mark.parametrize(("split", "flagged"), [("train", True), ("all", True), ("val", False)])
def test_a_split_that_is_asked_for_is_flagged_where_it_holds_training_images(nuclei, model, tmp_path, split, flagged):
    truth = write_classes(tmp_path / "t", {"v": "positive", "t": "negative"})
    result, _, _ = score(tmp_path / "s", nuclei.images, truth, model=model, split=split)
    assert ("scored_on_training_labels" in result.metrics) == flagged
    assert ("may have learned from their labels" in result.remark) == flagged


def test_predictions_of_other_images_are_refused(nuclei, probability, tmp_path):
    found = predicted(nuclei, probability)
    del found["c007"]
    predictions = write_classes(tmp_path / "p", found)
    with pytest.raises(ArtifactError, match=r"--predictions: .*no class of 'c007'; run infer on the images given here"):
        score(tmp_path / "s", nuclei.images, nuclei.labels, predictions=predictions)
    foreign = write_classes(tmp_path / "t", {"zebra": "positive"})
    with pytest.raises(ArtifactError, match=r"--truth: 'zebra' has labels, but is no image of"):
        score(tmp_path / "s2", nuclei.images, foreign, predictions=predictions)


def test_models_of_other_kinds(nuclei, model, tmp_path):
    with pytest.raises(ArtifactError, match=r"of kind 'encoder'; give one of kind 'segmentor' or 'detector' or 'clas"):
        score(tmp_path / "s", nuclei.images, nuclei.labels, model=write_encoder(tmp_path / "encoder"))
    with LabelWriter(tmp_path / "masks", "truth") as writer:
        writer.add("c000", np.ones((48, 48), np.uint8), "instances")
    seal(tmp_path / "masks", LabelSet)
    result, scores, _ = score(tmp_path / "m", nuclei.images, tmp_path / "masks", model=model)
    assert "no image has a class to score against; the truth holds label images of 1 image" in result.skipped
    assert scores["overall"] == {} and result.classification is None


def test_some_of_the_images(nuclei, model, tmp_path):
    _, scores, rows = score(tmp_path / "s", nuclei.images, nuclei.labels, model=model, max_images=10)
    assert scores["n"] == 10 == len(rows) and rows[0]["image"] == "c000" and rows[-1]["image"] == nuclei.keys[-1]


def test_the_page_shows_matrix_curves_and_examples(nuclei, model, tmp_path):
    result, scores, rows = score(tmp_path / "s", nuclei.images, nuclei.labels, model=model)
    html = result.page.html()
    for title in ("Confusion matrix", "By class", "Reliability and ROC", "Surest wrong", "Least sure", "Surest right"):
        assert f"<h3>{title}</h3>" in html
    wrong = sum(row["class"] != row["true_class"] for row in rows)
    assert html.count("data:image/") == min(6, wrong) + 12 and html.count("<svg") == 2 and wrong > 0
    assert format(scores["overall"]["ece"], ".4g") in html
    assert [name for name in Evaluate.headlines if name in result.metrics] == ["accuracy", "auroc", "ece"]


def test_real_images_of_16_bit_and_another_size(model, tmp_path):
    """A classifier of one channel scores what `ingest` makes of class folders."""
    for name in ("positive", "negative"):
        some(real(f"malaria/test/{name}"), tmp_path / "in/test" / name, "*_cell_10[0-9].png")
    done = ingest(tmp_path / "in", tmp_path / "out")
    result, _, rows = score(tmp_path / "s", tmp_path / "out/images", tmp_path / "out/labels", model=model)
    assert len(rows) == len(done.images) > 5 and 0 <= result.metrics["accuracy"] <= 1
    wide = write_images(tmp_path / "wide", {"a": np.full((70, 900, 1), 3000, np.uint16), "b": np.ones((9, 9, 1), "u1")})
    truth = write_classes(tmp_path / "t", {"a": "negative", "b": "positive"})
    assert len(score(tmp_path / "w", wide, truth, model=model)[2]) == 2
