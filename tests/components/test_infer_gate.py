"""`infer` with a classifier: three ways out, and detector and segmentor behind the gate."""

import csv
from pathlib import Path

import numpy as np
import pytest
from small_classifier import crops, trained, write_classifier
from small_segmentor import write_encoder, write_images, write_model

from components.infer.component import Infer
from components.infer.gate import Gate, positive_classes
from components.infer.image_batches import batches
from components.infer.main import run
from components.infer.models import Models, present_models
from shared.artifacts.image_set import ImageReader
from shared.artifacts.kinds import LabelSet, Model
from shared.artifacts.label_set import LabelReader
from shared.artifacts.manifest import seal
from shared.models.class_predictor import ClassPredictor
from shared.models.config import ClassifierPostProcessing
from shared.models.files import save_absent
from shared.stage.declaration import Result
from shared.system.errors import ArtifactError, UserError

CROPS, TRUTH = crops(60, "lower", seed=9)
IMAGES = {f"crop{i:02d}": crop for i, crop in enumerate(CROPS)}
QUANTILE = 0.8
FORMATS = ["classes_csv", "summary_csv", "label_tiff"]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Crops of nuclei and of background, which the classifier did not see."""
    return write_images(tmp_path_factory.mktemp("images") / "i", IMAGES)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / "m")


@pytest.fixture(scope="module")
def segmentor(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("segmentor") / "m")


def stage(images: Path, out: Path, **fields) -> Infer:
    for name in ("predictions", "files"):
        (out / name).mkdir(parents=True)
    fields = {"formats": FORMATS, "target_error": 0.05} | fields
    return Infer(images=images, predictions=out / "predictions", files=out / "files", **fields)


def infer(images: Path, out: Path, **fields) -> tuple[Result, LabelReader]:
    result = run(stage(images, out, **fields))
    seal(out / "predictions", LabelSet, skipped=result.skipped)
    return result, LabelReader(out / "predictions")


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as stream:
        return {row["image"]: row for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def gated(images, classifier, segmentor, tmp_path_factory):
    out = tmp_path_factory.mktemp("gated") / "o"
    return out, *infer(images, out, classifier=classifier, segmentor=segmentor, distance_quantile=QUANTILE)


def test_answers_keep_the_target_error_and_images_far_from_the_training_images_abstain(gated):
    found = gated[2].image_classes()
    assert list(found) == sorted(IMAGES)
    distances = trained().config.postprocessing.calibration_distances
    limit = distances[int(np.ceil((len(distances) + 1) * QUANTILE)) - 1]
    far = {key for key, item in found.items() if item.distance > limit}
    assert far and far == {key for key, item in found.items() if item.reason.startswith("unlike the training images")}
    assert {found[key].outcome for key in far} == {"abstain"}
    pairs = [(found[f"crop{i:02d}"].outcome, ("negative", "positive")[truth]) for i, truth in enumerate(TRUTH)]
    answered = [pair for pair in pairs if pair[0] != "abstain"]
    assert len(answered) >= 0.8 * (len(CROPS) - len(far))
    assert sum(ours != theirs for ours, theirs in answered) <= 0.06 * len(answered)


def test_only_positive_images_are_segmented(gated):
    out, result, reader = gated
    found = reader.image_classes()
    positive = sorted(key for key, item in found.items() if item.outcome == "positive")
    assert reader.keys() == positive and 10 < len(positive) < 40
    assert sorted(path.stem for path in (out / "files/labels").iterdir()) == positive
    summary = table(out / "files/summary.csv")
    assert {key for key, row in summary.items() if row["cells"]} == set(positive)
    cells = sum(int(reader.mask(key).max()) for key in positive)
    assert result.metrics["cells"] == cells > 0 and result.metrics["positive"] == len(positive)
    counts = [result.metrics[name] for name in ("positive", "negative", "abstain")]
    assert sum(counts) == len(IMAGES) == result.metrics["images"] and result.metrics["failed"] == 0


def test_classes_csv_says_why(gated):
    rows, found = table(gated[0] / "files/classes.csv"), gated[2].image_classes()
    assert set(rows) == set(found)
    for key, row in rows.items():
        assert (row["outcome"], row["reason"], row["class"]) == (
            found[key].outcome,
            found[key].reason,
            found[key].name,
        )
        chances = {name: float(row[f"p_{name}"]) for name in ("negative", "positive")}
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5) and row["source"] == f"{key}.tif"
        assert chances == pytest.approx(dict(found[key].probabilities), rel=1e-6)


def test_the_page_shows_abstained_images_first(gated):
    page = gated[1].page.html()
    places = [page.index(f"<h2>{title}") for title in ("Abstained: please look", "Positive", "Negative")]
    assert places == sorted(places)
    first = page[places[0] : places[1]]
    assert "unlike the training images: distance" in first and first.count("data:image/") >= 1
    assert "Images that need a person (abstain): " in gated[1].remark


def test_what_is_abstained_from_can_be_searched_all_the_same(images, classifier, segmentor, gated, tmp_path):
    given = {"classifier": classifier, "segmentor": segmentor, "distance_quantile": QUANTILE}
    _, reader = infer(images, tmp_path / "o", **given, on_abstain="continue")
    searched = {key for key, item in reader.image_classes().items() if item.outcome in ("positive", "abstain")}
    assert set(reader.keys()) == searched > set(gated[2].keys())


def test_images_are_predicted_together_with_the_same_result(images, classifier, segmentor, gated, tmp_path):
    """50 px crops share a forward pass of each network; one at a time gives the same."""
    given = stage(images, tmp_path / "count", classifier=classifier, segmentor=segmentor)
    models, sizes = Models(given, present_models(given)), {"classifier": [], "segmentor": []}
    for kind, predictor in (("classifier", models.classifier.predictor), ("segmentor", models.segmentor.predictor)):
        network = predictor.network

        def spy(batch, network=network, kind=kind):
            sizes[kind].append(len(batch))
            return network(batch)

        object.__setattr__(predictor, "network", spy)
    for batch in batches(ImageReader(images), given.image_batch):
        list(models.predict(batch))
    assert sizes["classifier"] == [60], "all in one pass"
    assert max(sizes["segmentor"]) == given.batch_size and len(sizes["segmentor"]) <= 4
    one = {"image_batch": 1, "distance_quantile": QUANTILE}
    _, alone = infer(images, tmp_path / "one", classifier=classifier, segmentor=segmentor, **one)
    together = gated[2]
    for key, item in alone.image_classes().items():
        assert item.probabilities == pytest.approx(dict(together.image_classes()[key].probabilities), abs=1e-5)
        assert item.outcome == together.image_classes()[key].outcome
    for key in sorted(alone.entries):
        assert (alone.mask(key) != together.mask(key)).mean() < 1e-3


def test_absent_models_are_ignored_and_told(images, classifier, gated, tmp_path):
    save_absent(tmp_path / "none", "no boxes")
    seal(tmp_path / "none", Model)
    absent = tmp_path / "none"
    result, reader = infer(images, tmp_path / "some", classifier=classifier, detector=absent, segmentor=absent)
    assert len(reader.image_classes()) == len(IMAGES) and not reader.keys()
    assert "Without detector and segmentor, which are absent." in result.remark
    assert {path.name for path in (tmp_path / "some/files").iterdir()} == {"classes.csv", "summary.csv"}
    result, reader = infer(images, tmp_path / "nothing", classifier=absent)
    assert result.skipped == "no model to predict with: classifier is absent" and not reader.contents()
    with pytest.raises(UserError, match=r"--classifier, --detector, --segmentor: none is given"):
        run(stage(images, tmp_path / "without"))


def test_without_a_classifier_every_image_is_searched(images, segmentor, tmp_path):
    save_absent(tmp_path / "none", "no classes")
    seal(tmp_path / "none", Model)
    result, reader = infer(images, tmp_path / "o", classifier=tmp_path / "none", segmentor=segmentor)
    assert reader.keys() == sorted(IMAGES) and not reader.classes()
    assert "Without classifier, which is absent." in result.remark and "positive" not in result.metrics


def test_a_model_of_another_kind_is_refused(images, classifier, segmentor, tmp_path):
    with pytest.raises(ArtifactError, match=r"--classifier: .*'segmentor'; give one of kind 'classifier'"):
        run(stage(images, tmp_path / "a", classifier=segmentor))
    with pytest.raises(ArtifactError, match=r"--detector: .*'encoder'; give one of kind 'detector'"):
        run(stage(images, tmp_path / "b", detector=write_encoder(tmp_path / "e")))


def variant(folder: Path, classes: tuple[str, ...] | None = None, **postprocessing) -> Path:
    """The trained classifier with other names of classes or other settings."""
    config = trained().config
    settings = config.postprocessing.model_copy(update=postprocessing)
    architecture = config.architecture.model_copy(update={"classes": classes} if classes else {})
    changed = {"architecture": architecture, "postprocessing": settings}
    return write_classifier(folder, config.model_copy(update=changed))


def test_a_target_error_that_the_calibration_cannot_keep_is_refused(images, classifier, tmp_path):
    with pytest.raises(UserError, match=r"--target_error 0.001: needs 999 calibration images .* 120 of"):
        run(stage(images, tmp_path / "a", classifier=classifier, target_error=0.001))
    few = variant(tmp_path / "few", calibration=((0.5,) * 18, (0.5,) * 40))
    with pytest.raises(UserError, match=r"needs 19 .* the classifier has 18 of class negative;"):
        run(stage(images, tmp_path / "b", classifier=few))
    bare = variant(tmp_path / "bare", calibration=(), calibration_distances=())
    with pytest.raises(UserError, match=r"--classifier: not calibrated.*--target_error none"):
        run(stage(images, tmp_path / "c", classifier=bare))
    result, reader = infer(images, tmp_path / "d", classifier=bare, target_error="none")
    assert result.metrics["abstain"] == 0 and "too few for a limit" in result.remark
    best = {key: max(item.probabilities, key=item.probabilities.get) for key, item in reader.image_classes().items()}
    assert best == reader.classes()


def test_classes_that_count_as_positive_can_be_named(images, gated, tmp_path):
    named = variant(tmp_path / "m", classes=("background", "nuclei"))
    given = {"classifier": named, "distance_quantile": QUANTILE}
    swapped, _ = infer(images, tmp_path / "a", **given, positive=["background"])
    assert swapped.metrics["positive"] == gated[1].metrics["negative"]
    by_default, _ = infer(images, tmp_path / "b", **given)
    assert by_default.metrics["positive"] == gated[1].metrics["positive"], "all but the first"
    with pytest.raises(UserError, match=r"--positive nucli: no class of the classifier; did you mean nuclei\?"):
        run(stage(images, tmp_path / "c", classifier=named, positive=["nucli"]))


def test_positive_classes():
    assert positive_classes(["a", "positive", "c"], []) == {"positive"}
    assert positive_classes(["ring", "negative", "schizont"], []) == {"ring", "schizont"}
    assert positive_classes(["a", "b", "c"], []) == {"b", "c"}
    assert positive_classes(["a", "b", "c"], ["a", "c"]) == {"a", "c"}
    with pytest.raises(UserError, match="--positive: every class"):
        positive_classes(["a", "b"], ["b", "a"])


def test_of_three_classes_one_plausible_is_an_answer_and_several_are_not():
    gate = Gate(("a", "b", "c"), frozenset("bc"), np.array([0.5, 0.3, 0.2]), max_distance=2.0)
    rows = [[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.2, 0.4, 0.4], [0.45, 0.28, 0.19], [0.1, 0.8, 0.1], [np.nan, 1, 0]]
    answers = list(gate(np.array(rows), np.array([1, 1, 1, 1, 2.5, 1])))
    assert [getattr(answer, "outcome", answer) for answer in answers] == [
        "negative",
        "positive",
        "abstain",
        "negative",
        "abstain",
        "the classifier's output is not finite",
    ]
    assert [answer.reason for answer in answers[:5]] == [
        "a alone is plausible",
        "b alone is plausible",
        "several classes are plausible: b, c",
        "a is the most probable class",
        "unlike the training images: distance 2.5, limit 2",
    ]


def test_a_large_image_is_classified_as_a_whole(classifier, tmp_path):
    """As in training: resized to the classifier's input, not cut."""
    large = np.kron(CROPS[1][..., 0], np.ones((20, 20), CROPS[1].dtype))[..., None]
    folder = write_images(tmp_path / "i", {"large": large})
    _, reader = infer(folder, tmp_path / "o", classifier=classifier, distance_quantile="none")
    expected = ClassPredictor.of(trained(), "cpu")([large])
    assert list(reader.image_classes()["large"].probabilities.values()) == pytest.approx(
        expected.probability[0], abs=1e-5
    )
    assert isinstance(trained().config.postprocessing, ClassifierPostProcessing)
