"""`evaluate`: its scores are those of the label images that `infer` writes, by StarDist's matcher and scikit-learn."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from real_labels import wheel_nuclei
from sklearn.metrics import confusion_matrix, roc_curve
from small_segmentor import CONFIG, predict_maps, write_encoder, write_images, write_model, write_truth
from stardist.matching import matching, matching_dataset

from components.evaluate.component import Evaluate
from components.evaluate.main import run
from components.evaluate.ranked_panels import RankedPanels, draw_panel
from components.infer.component import Infer
from components.infer.main import run as infer
from shared.artifacts.annotation import Annotation
from shared.artifacts.image_set import ImageWriter
from shared.artifacts.kinds import ImageSet, LabelSet
from shared.artifacts.label_set import LabelReader, LabelWriter
from shared.artifacts.manifest import seal, verify
from shared.artifacts.postprocessing import PostProcessingOptions
from shared.data.labelled_images import learned_labels
from shared.imaging.overlays import PREDICTION_COLOUR, TRUTH_COLOUR
from shared.metrics.classification import Classification
from shared.metrics.pixels import NAMES as PIXEL_NAMES
from shared.metrics.roc import BINS
from shared.metrics.tally import NAMES
from shared.models.prediction_options import PredictionOptions
from shared.stage.declaration import Result
from shared.stage.runner import execute, parse
from shared.system.errors import ArtifactError, UserError

IMAGE, LABELS = wheel_nuclei()
PARTS = {"a": np.s_[:160, :200], "b": np.s_[200:360, 100:300], "c": np.s_[352:, 312:], "d": np.s_[300:420, 0:90]}
IMAGES = {key: np.ascontiguousarray(IMAGE[part])[..., None] for key, part in PARTS.items()}
MASKS = {key: np.ascontiguousarray(LABELS[part]) for key, part in PARTS.items() if key != "d"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "i", IMAGES)


def score(images: Path, truth: Path, model: Path, out: Path, **parameters):
    out.mkdir(parents=True)
    result = run(Evaluate(images=images, truth=truth, model=model, scores=out, tile=128, **parameters))
    with (out / "scores.csv").open(newline="") as stream:
        return result, json.loads((out / "scores.json").read_text()), list(csv.DictReader(stream))


def predict(images: Path, model: Path, folder: Path, **parameters) -> Path:
    """A LabelSet of predictions by `infer`."""
    folder.mkdir(parents=True)
    (folder.parent / f"{folder.name}-files").mkdir()
    files = folder.parent / f"{folder.name}-files"
    infer(Infer(images=images, segmentor=model, predictions=folder, files=files, formats=[], **parameters))
    seal(folder, LabelSet)
    return folder


def execute_stage(**given) -> Result:
    return execute(parse(Evaluate, [str(word) for name, where in given.items() for word in (f"--{name}", where)]), run)


def test_scores_are_those_of_what_infer_writes(images, model, tmp_path):
    result, scores, rows = score(images, write_truth(tmp_path / "truth", MASKS), model, tmp_path / "scores")
    predictions = LabelReader(predict(images, model, tmp_path / "p"))
    found = {key: predictions.mask(key) for key in MASKS}
    theirs = matching_dataset(list(MASKS.values()), list(found.values()), thresh=0.5, show_progress=False)
    assert 0.3 < theirs.f1 < 1
    assert scores["overall"]["f1"] == pytest.approx(theirs.f1)
    assert scores["overall"]["ap50"] == pytest.approx(theirs.accuracy)
    assert scores["overall"]["pq"] == pytest.approx(theirs.panoptic_quality, rel=1e-5)
    assert scores["n"] == 3 and scores["true_objects"] == theirs.n_true and scores["predicted_objects"] == theirs.n_pred
    assert result.metrics == scores["overall"] | {"images": 3.0} and result.skipped is None
    assert all(type(value) is float for value in result.metrics.values())
    assert [row["image"] for row in rows] == ["a", "b", "c"] and rows[0]["source"] == "a.tif"
    for row in rows:
        alone = matching(MASKS[row["image"]], found[row["image"]], thresh=0.5)
        assert float(row["f1"]) == pytest.approx(alone.f1, rel=1e-5)
        assert int(row["predicted_objects"]) == alone.n_pred


@pytest.mark.parametrize("parameters", [{}, {"foreground_threshold": 0.7, "min_area_px": 40}])
def test_predictions_score_as_the_model_that_predicted_them(images, model, tmp_path, parameters):
    truth = write_truth(tmp_path / "truth", MASKS)
    _, by_model, rows = score(images, truth, model, tmp_path / "model", **parameters)
    found = predict(images, model, tmp_path / "found", **parameters)
    result, scores, same = score(images, truth, None, tmp_path / "scores", predictions=found)
    assert scores == by_model and same == rows and 0.3 < scores["overall"]["f1"] < 1
    assert result.page.html().count("data:image/") == 3


def test_auto_is_the_models_setting_and_a_value_overrides_it(images, model, tmp_path):
    """`high_threshold=0` switches the model's hysteresis off; once it meant: as the model says."""
    truth = write_truth(tmp_path / "truth", MASKS)
    settings = CONFIG.postprocessing.model_copy(update={"high_threshold": 0.95, "min_area_px": 40})
    strict = write_model(tmp_path / "strict", CONFIG.model_copy(update={"postprocessing": settings}))
    given = {"high_threshold": 0.95, "min_area_px": 40}
    plain = score(images, truth, model, tmp_path / "plain")[1]
    auto = score(images, truth, strict, tmp_path / "auto")[1]
    assert auto == score(images, truth, model, tmp_path / "given", **given)[1] != plain
    off = score(images, truth, strict, tmp_path / "off", high_threshold=0, min_area_px=16)[1]
    assert off == plain and off["predicted_objects"] > auto["predicted_objects"]


def test_images_are_rescaled_only_where_both_pixel_sizes_are_known(tmp_path):
    """As `infer` does it. The model was trained at 0.5 um/px, an image is twice as large at 0.25."""
    large = np.kron(IMAGES["a"][..., 0], np.ones((2, 2), np.uint16))[..., None]
    images = write_images(tmp_path / "images", {"known": large, "unknown": large}, {"known": 0.25})
    labels = np.kron(MASKS["a"], np.ones((2, 2), np.uint16))
    truth = write_truth(tmp_path / "truth", {"known": labels, "unknown": labels})
    config = CONFIG.model_copy(update={"input": CONFIG.input.model_copy(update={"um_per_px": 0.5})})
    model = write_model(tmp_path / "model", config)
    rows = {how: score(images, truth, model, tmp_path / how, rescale=how)[2] for how in ("never", "um_per_px")}
    (known, unknown), (rescaled, as_it_is) = rows["never"], rows["um_per_px"]
    assert unknown == as_it_is and rescaled["dice"] != known["dice"] == unknown["dice"]
    found = predict(images, model, tmp_path / "found", rescale="um_per_px")
    assert score(images, truth, None, tmp_path / "scores", predictions=found)[2] == rows["um_per_px"]


def test_scores_of_predictions_need_no_network(images, model, tmp_path):
    truth = write_truth(tmp_path / "truth", MASKS)
    found = predict(images, model, tmp_path / "found")
    words = ["evaluate", "--images", images, "--truth", truth, "--predictions", found, "--scores", tmp_path / "scores"]
    code = (
        "import sys; from components.__main__ import command_line\n"
        f"code = command_line({[str(word) for word in words]!r}); print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.split() == ["0", "False"], done.stderr


@pytest.mark.parametrize("both", [True, False])
def test_either_a_model_or_predictions(both, images, model, tmp_path):
    truth = write_truth(tmp_path / "truth", MASKS)
    given = {"predictions": predict(images, model, tmp_path / "found")} if both else {}
    with pytest.raises(UserError, match="--model, --predictions: give exactly one"):
        score(images, truth, model if both else None, tmp_path / "scores", **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: masks.pop("a"), "no label image of 'a'; run infer on"),
        (lambda masks: masks.update(a=masks["a"][:150]), r"'a' is \(150, 200\), its truth \(160, 200\)"),
    ],
    ids=["missing", "another size"],
)
def test_predictions_of_other_images_are_refused(change, message, images, model, tmp_path):
    masks = dict(MASKS)
    change(masks)
    found = write_truth(tmp_path / "found", masks)
    with pytest.raises(ArtifactError, match=f"--predictions: .*{message}"):
        score(images, write_truth(tmp_path / "truth", MASKS), None, tmp_path / "scores", predictions=found)


def test_evaluate_and_infer_share_the_settings_of_prediction_and_post_processing():
    shared = {*PostProcessingOptions.model_fields, *PredictionOptions.model_fields}
    for name in shared:
        ours, theirs = Evaluate.model_fields[name], Infer.model_fields[name]
        assert (ours.default, ours.description) == (theirs.default, theirs.description), name


def test_headlines_are_metrics_and_columns_are_the_evaluators(images, model, tmp_path):
    result, scores, rows = score(images, write_truth(tmp_path / "truth", MASKS), model, tmp_path / "scores")
    assert [name for name in Evaluate.headlines if name in result.metrics] == ["dice", "f1"]
    assert set(scores["overall"]) == set(NAMES)
    assert list(rows[0]) == ["image", "source", *NAMES, "true_objects", "predicted_objects"]


def test_page_shows_numbers_and_pictures(images, model, tmp_path):
    result, scores, _ = score(images, write_truth(tmp_path / "truth", MASKS), model, tmp_path / "scores")
    html = result.page.html()
    assert html.count("data:image/") == 3
    assert format(scores["overall"]["seg"], ".4g") in html


def write_other_labels(folder: Path, contents: str) -> Path:
    """A truth without label images."""
    with LabelWriter(folder, "truth") as writer:
        if contents == "boxes":
            writer.annotate("a", (160, 200), [Annotation("cell", (10, 20, 30, 40), 1200)])
        if contents == "classes":
            writer.classify("a", "healthy")
            writer.classify("b", "ill")
    seal(folder, LabelSet)
    return folder


@pytest.mark.parametrize(
    ("contents", "held"), [("nothing", "no labels"), ("boxes", "of 1 image"), ("classes", "classes of 2 images")]
)
def test_without_label_images_it_is_skipped_and_says_what_the_truth_holds(contents, held, images, model, tmp_path):
    truth = write_other_labels(tmp_path / "truth", contents)
    result, scores, rows = score(images, truth, model, tmp_path / "scores")
    assert held in result.skipped
    assert scores == {"overall": {}, "n": 0, "true_objects": 0, "predicted_objects": 0} and rows == []
    assert result.metrics == {} and result.skipped in result.page.html() and result.classification is None


def test_without_labels_an_earlier_confusion_matrix_does_not_stay(images, model, tmp_path):
    written = tmp_path / "pixels.json"
    for name, masks in (("one", MASKS), ("none", {})):
        given = {"images": images, "truth": write_truth(tmp_path / f"truth-{name}", masks), "model": model}
        given |= {"scores": tmp_path / name, "classification": written}
        execute_stage(**given)
        assert (json.loads(written.read_text()) is None) == (name == "none")


def test_some_of_the_images_spread_over_the_set(images, model, tmp_path):
    truth = write_truth(tmp_path / "truth", MASKS)
    _, scores, rows = score(images, truth, model, tmp_path / "some", max_images=2)
    assert scores["n"] == 2 and [row["image"] for row in rows] == ["a", "c"]
    _, scores, _ = score(images, truth, model, tmp_path / "all", max_images=9)
    assert scores["n"] == 3


def test_images_whose_labels_were_learned_from_are_left_out(images, model, tmp_path):
    truth = write_truth(tmp_path / "truth", MASKS)
    free, scores, rows = score(images, truth, model, tmp_path / "free")
    assert len(rows) == 3 and "scored_on_training_labels" not in free.metrics | scores and not free.remark
    few, scores, rows = score(images, truth, model, tmp_path / "few", use_labels=2)
    assert [row["image"] for row in rows] == ["c"] and scores["n"] == 1 == few.metrics["images"]
    assert few.remark.startswith("2 ")
    assert "scored_on_training_labels" not in few.metrics | scores and few.metrics != free.metrics


def test_scores_on_images_whose_labels_were_learned_from_are_flagged(images, model, tmp_path):
    truth = write_truth(tmp_path / "truth", MASKS)
    free, _, rows = score(images, truth, model, tmp_path / "free")
    every, scores, same = score(images, truth, model, tmp_path / "every", use_labels=3)
    assert same == rows and every.metrics == free.metrics | {"scored_on_training_labels": 1.0}
    assert scores["scored_on_training_labels"] is True and every.remark


def test_only_labels_of_the_split_train_are_learned_from(model, tmp_path):
    """Labels of the other splits are never learned from, however many may be."""
    with ImageWriter(tmp_path / "images") as writer:
        for key in sorted(IMAGES):
            writer.add(key, IMAGES[key], source=f"{key}.tif", split="test" if key == "a" else "train")
    seal(tmp_path / "images", ImageSet)
    truth = write_truth(tmp_path / "truth", MASKS)
    result, _, rows = score(tmp_path / "images", truth, model, tmp_path / "scores", use_labels=9)
    assert [row["image"] for row in rows] == ["a"] and "scored_on_training_labels" not in result.metrics
    reader = LabelReader(truth)
    assert learned_labels(reader, {"b", "c", "d"}, 9) == ["b", "c"] and learned_labels(reader, {"b", "c"}, 1) == ["b"]
    assert learned_labels(reader, {"a", "b", "c"}, 0) == []


def test_foreground_truth_is_scored_by_pixels_alone(images, model, tmp_path):
    masks = MASKS | {"b": (MASKS["b"] > 0).astype(np.uint8)}
    truth = write_truth(tmp_path / "truth", masks, {"b": "foreground"})
    _, mixed, rows = score(images, truth, model, tmp_path / "mixed")
    assert rows[1]["f1"] == rows[1]["true_objects"] == "" and float(rows[1]["dice"]) > 0.5
    assert mixed["n"] == 3 and mixed["true_objects"] == sum(len(np.unique(MASKS[key])) - 1 for key in "ac")
    truth = write_truth(tmp_path / "pixels", {"b": masks["b"]}, {"b": "foreground"})
    result, pixels, _ = score(images, truth, model, tmp_path / "scores")
    assert set(pixels["overall"]) == set(PIXEL_NAMES)
    assert pixels["overall"]["dice"] == pytest.approx(float(rows[1]["dice"]), rel=1e-5)
    assert not set(result.metrics) & {"f1", "seg"}


def test_pixels_of_confidence_zero_do_not_count(images, model, tmp_path):
    mask, conf = MASKS["a"].copy(), np.full(MASKS["a"].shape, 255, np.uint8)
    mask[:, 100:], conf[:, 100:] = 0, 0  # half of the image was never labelled
    _, unknown, _ = score(images, write_truth(tmp_path / "t1", {"a": mask}), model, tmp_path / "s1")
    _, ignored, _ = score(images, write_truth(tmp_path / "t2", {"a": mask}, a=conf), model, tmp_path / "s2")
    assert ignored["overall"]["precision"] > unknown["overall"]["precision"] + 0.1
    assert ignored["overall"]["dice"] > unknown["overall"]["dice"] + 0.2
    assert ignored["true_objects"] == unknown["true_objects"]


def test_the_confusion_matrix_and_the_roc_curve_are_those_of_sklearn(images, model, tmp_path):
    conf = {"a": np.full(MASKS["a"].shape, 255, np.uint8)}
    conf["a"][:, 100:] = 0  # half of the image was never labelled
    truth = write_truth(tmp_path / "truth", MASKS, **conf)
    found = predict(images, model, tmp_path / "found")
    ours = score(images, truth, model, tmp_path / "model")[0].classification
    known = {key: conf[key] > 0 if key in conf else np.ones(MASKS[key].shape, bool) for key in MASKS}
    true = np.concatenate([MASKS[key][known[key]] > 0 for key in MASKS])
    cell = np.concatenate([LabelReader(found).mask(key)[known[key]] > 0 for key in MASKS])
    assert ours.labels == ["background", "cell"] and ours.confusion == confusion_matrix(true, cell).tolist()

    probability = np.concatenate([predict_maps(IMAGES[key])[0][known[key]] for key in MASKS])
    bins = np.minimum(np.floor(probability * BINS), BINS - 1) / BINS
    theirs = np.stack(roc_curve(true, bins, drop_intermediate=False), axis=1)
    assert len(theirs) > 100 and np.allclose(ours.roc[1:], theirs[1:], rtol=0, atol=1e-12)

    same = score(images, truth, None, tmp_path / "predictions", predictions=found)[0].classification
    assert same.confusion == ours.confusion and same.roc == [], "label images hold no probability"


def test_the_page_shows_the_confusion_matrix(images, model, tmp_path):
    result, _, _ = score(images, write_truth(tmp_path / "truth", MASKS), model, tmp_path / "scores")
    for row in result.classification.confusion:
        assert "".join(f"<td class='n'>{int(n)}</td>" for n in row) in result.page.html()


def test_by_the_command_line_the_same_digest_again(images, model, tmp_path):
    truth = write_truth(tmp_path / "truth", MASKS)
    given = {"images": images, "truth": truth, "model": model, "tile": 128}
    digests = set()
    for name, more in (("one", {}), ("two", {"classification": tmp_path / "pixels.json"})):
        result = execute_stage(**given, scores=tmp_path / name, **more)
        digests.add(verify(tmp_path / name).digest)
    assert len(digests) == 1
    assert Classification.model_validate_json((tmp_path / "pixels.json").read_text()) == result.classification
    assert {path.name for path in tmp_path.iterdir()} == {"truth", "one", "two", "pixels.json"}


def test_an_encoder_is_refused(images, tmp_path):
    encoder = write_encoder(tmp_path / "encoder")
    with pytest.raises(ArtifactError, match=r"encoder.*segmentor"):
        score(images, write_truth(tmp_path / "truth", MASKS), encoder, tmp_path / "scores")


def test_labels_of_other_images_are_refused(images, model, tmp_path):
    with pytest.raises(ArtifactError, match=r"'zebra'.*no image of"):
        score(images, write_truth(tmp_path / "t1", {"zebra": MASKS["a"]}), model, tmp_path / "s1")
    with pytest.raises(ArtifactError, match=r"'a' are \(150, 200\)"):
        score(images, write_truth(tmp_path / "t2", {"a": MASKS["a"][:150]}), model, tmp_path / "s2")


def test_ranked_panels_are_the_ends_of_the_whole_list():
    scores = np.random.default_rng(3).random(40).round(2).tolist()
    drawn = []
    panels = RankedPanels()
    for n, number in enumerate(scores):
        panels.add(number, str(n), lambda n=n: drawn.append(n) or np.zeros((1, 1, 3), np.uint8))
    assert [kept.score for kept in panels.worst()] == sorted(scores)[:3]
    assert [kept.score for kept in panels.best()] == sorted(scores)[:-4:-1]
    assert len(drawn) < 40
    few = RankedPanels()
    for number in (0.5, 0.2, 0.9):
        few.add(number, "", lambda: np.zeros((1, 1, 3), np.uint8))
    assert [kept.score for kept in few.worst()] == [0.2, 0.5] and [kept.score for kept in few.best()] == [0.9]


def test_panel_draws_both_outlines():
    picture = draw_panel(IMAGE[..., None], LABELS, np.roll(LABELS, 5, 0))
    assert picture.shape == (512, 3 * 512 + 8, 3)
    parts = picture[:, :512], picture[:, 516:1028], picture[:, 1032:]
    for part, colour, there in zip(
        parts, (TRUTH_COLOUR, TRUTH_COLOUR, PREDICTION_COLOUR), (False, True, True), strict=True
    ):
        assert (part == colour).all(axis=2).any() == there
    narrow = np.zeros((2000, 100), np.uint8)
    assert draw_panel(narrow[..., None], narrow, narrow.astype(np.uint16)).shape == (640, 3 * 32 + 8, 3)
