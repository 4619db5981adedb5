"""Metrics against implementations that none of us wrote, on real label images and on real mistakes."""

import doctest

import numpy as np
import pytest
import tifffile
from ctc_metrics import evaluate_sequence
from real_labels import mistakes, otsu, real_pairs, wheel_nuclei
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score
from stardist.matching import matching, matching_dataset

from shared.instances.watershed import split_touching
from shared.metrics import contingency, pixels
from shared.metrics import tally as tally_module
from shared.metrics.instances import THRESHOLDS
from shared.metrics.pixels import dice_masks
from shared.metrics.tally import NAMES, Tally, tally

TRUTH = wheel_nuclei()[1][:320, :320]
MISTAKES = mistakes(TRUTH)
EMPTY = np.zeros_like(TRUTH)


def real_cases() -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth and Otsu + watershed, on nuclei and on phase contrast, where that fails badly."""
    pairs = real_pairs("dsb2018/fluo", 4) + real_pairs("dsb2018/histo_purple", 2) + real_pairs("usiigaci/labelled", 1)
    return [(truth, split_touching(otsu(image))) for image, truth in pairs]


@pytest.fixture(scope="module")
def cases() -> list[tuple[np.ndarray, np.ndarray]]:
    return [(TRUTH, found) for found in MISTAKES.values()]


def agrees_with_stardist(truth: np.ndarray, found: np.ndarray) -> None:
    ours, theirs = tally(truth, found), matching(truth, found, thresh=THRESHOLDS)
    numbers = ours.metrics()
    assert ours.matched.tolist() == [other.tp for other in theirs]
    assert (ours.true, ours.predicted) == (theirs[0].n_true, theirs[0].n_pred)
    for name, other in (("precision", "precision"), ("recall", "recall"), ("f1", "f1"), ("ap50", "accuracy")):
        assert numbers[name] == pytest.approx(getattr(theirs[0], other)), name
    assert numbers["ap75"] == pytest.approx(theirs[THRESHOLDS.index(0.75)].accuracy)
    assert numbers["map"] == pytest.approx(np.mean([other.accuracy for other in theirs]))
    assert numbers["pq"] == pytest.approx(theirs[0].panoptic_quality, rel=1e-5)  # theirs has float32 IoUs
    if theirs[0].tp:
        assert ours.matched_iou / ours.matched[0] == pytest.approx(theirs[0].mean_matched_score, rel=1e-5)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_objects_as_stardist_counts_them(mistake):
    agrees_with_stardist(TRUTH, MISTAKES[mistake])


def test_objects_as_stardist_counts_them_on_real_predictions():
    for truth, found in real_cases():
        agrees_with_stardist(truth, found)


def test_pooled_as_stardist_pools(cases):
    total = sum((tally(*case) for case in cases), Tally())
    truths, found = zip(*cases, strict=True)
    theirs = matching_dataset(truths, found, thresh=0.5, show_progress=False)
    assert total.metrics()["f1"] == pytest.approx(theirs.f1)
    assert total.metrics()["pq"] == pytest.approx(theirs.panoptic_quality, rel=1e-5)
    assert total.images == len(cases)


def test_low_thresholds_need_an_assignment():
    pairs = contingency.overlap(TRUTH, MISTAKES["far"])
    for threshold in (0.01, 0.1, 0.3):
        ours = contingency.match(pairs, threshold)
        theirs = matching(TRUTH, MISTAKES["far"], thresh=threshold)
        assert len(ours) == theirs.tp > 0
        assert pairs.iou[ours].sum() == pytest.approx(theirs.mean_matched_score * theirs.tp, rel=1e-5)
        assert len(set(pairs.true[ours])) == len(set(pairs.predicted[ours])) == len(ours)


def ctc_numbers(cases: list[tuple[np.ndarray, np.ndarray]], folder) -> dict[str, float]:
    """SEG and DET by py-ctcmetrics, which reads folders laid out as the Cell Tracking Challenge does."""
    gt, res = folder / "01_GT", folder / "01_RES"
    for path in (gt / "TRA", gt / "SEG", res):
        path.mkdir(parents=True)
    tracks: dict[str, list[str]] = {"truth": [], "found": []}
    first = {"truth": 0, "found": 0}
    for frame, (truth, found) in enumerate(cases):
        frames = {}
        for name, labels in (("truth", truth), ("found", found)):
            numbers = np.unique(labels)[1:] if labels.any() else []
            unique = np.zeros(int(labels.max()) + 1, np.uint16)  # every object is a track of one frame
            unique[numbers] = np.arange(1, len(numbers) + 1) + first[name]
            tracks[name] += [f"{n} {frame} {frame} 0" for n in unique[numbers]]
            first[name] += len(numbers)
            frames[name] = unique[labels]
        tifffile.imwrite(gt / "TRA" / f"man_track{frame:03d}.tif", frames["truth"])
        tifffile.imwrite(gt / "SEG" / f"man_seg{frame:03d}.tif", frames["truth"])
        tifffile.imwrite(res / f"mask{frame:03d}.tif", frames["found"])
    (gt / "TRA" / "man_track.txt").write_text("\n".join(tracks["truth"]))
    (res / "res_track.txt").write_text("\n".join(tracks["found"]))
    return evaluate_sequence(str(res), str(gt), metrics=["SEG", "DET", "Valid"], threads=1)


def test_seg_and_det_as_py_ctcmetrics_has_them(cases, tmp_path):
    theirs = ctc_numbers(cases, tmp_path)
    assert theirs["Valid"] == 1
    ours = sum((tally(*case) for case in cases), Tally()).metrics()
    assert ours["seg"] == pytest.approx(theirs["SEG"])
    assert ours["det"] == pytest.approx(theirs["DET"])
    assert 0 < ours["seg"] < 1 and 0 < ours["det"] < 1


@pytest.mark.parametrize("mistake", ["split", "merged", "dropped", "invented", "shifted"])
def test_seg_and_det_of_one_kind_of_mistake(mistake, tmp_path):
    theirs = ctc_numbers([(TRUTH, MISTAKES[mistake])] * 2, tmp_path)  # a sequence of one frame crashes it
    ours = tally(TRUTH, MISTAKES[mistake]).metrics()
    assert ours["seg"] == pytest.approx(theirs["SEG"])
    assert ours["det"] == pytest.approx(theirs["DET"])


def test_seg_and_det_on_real_predictions(tmp_path):
    real = real_cases()
    theirs = ctc_numbers(real, tmp_path)
    ours = sum((tally(*case) for case in real), Tally()).metrics()
    assert ours["seg"] == pytest.approx(theirs["SEG"])
    assert ours["det"] == pytest.approx(theirs["DET"])


def aji_as_written(truth: np.ndarray, found: np.ndarray) -> float:
    """Kumar et al. 2017, algorithm 1, line by line on masks."""
    masks = {j: found == j for j in np.unique(found) if j}
    numerator = denominator = 0
    used = set()
    for i in np.unique(truth):
        if i == 0:
            continue
        mask = truth == i
        best, best_iou = None, 0.0
        for j in masks:
            iou = (mask & masks[j]).sum() / (mask | masks[j]).sum()
            if iou > best_iou:
                best, best_iou = j, iou
        if best is None:
            denominator += mask.sum()
            continue
        numerator += (mask & masks[best]).sum()
        denominator += (mask | masks[best]).sum()
        used.add(best)
    return numerator / (denominator + sum(masks[j].sum() for j in masks if j not in used))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_aji_as_its_algorithm_is_written(mistake):
    truth, found = TRUTH[:160, :160], MISTAKES[mistake][:160, :160]
    assert tally(truth, found).metrics()["aji"] == pytest.approx(aji_as_written(truth, found))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_pixels_as_sklearn_counts_them(mistake):
    truth, found = TRUTH > 0, MISTAKES[mistake] > 0
    numbers = tally(TRUTH, MISTAKES[mistake], instances=False).metrics()
    assert tuple(numbers) == pixels.NAMES
    assert numbers["dice"] == pytest.approx(f1_score(truth.ravel(), found.ravel()))
    assert numbers["iou"] == pytest.approx(jaccard_score(truth.ravel(), found.ravel()))
    assert dice_masks(truth, found) == pytest.approx(numbers["dice"])


def test_unknown_pixels_count_for_neither_side():
    known = np.zeros(TRUTH.shape, bool)
    known[:, :200] = True
    some = tally(TRUTH, MISTAKES["shifted"], known=known)
    assert some.metrics() == tally(TRUTH[:, :200], MISTAKES["shifted"][:, :200]).metrics()
    assert some.pixels.sum() == known.sum()


@pytest.mark.parametrize("known", [None, np.arange(TRUTH.size).reshape(TRUTH.shape) % 7 > 0])
def test_the_confusion_matrix_is_sklearns(known):
    every = np.ones(TRUTH.shape, bool) if known is None else known
    total = tally(TRUTH, MISTAKES["shifted"], known=known) + tally(TRUTH, MISTAKES["far"], known=known)
    predicted = np.concatenate([MISTAKES[name][every] > 0 for name in ("shifted", "far")])
    assert total.confusion == confusion_matrix(np.tile(TRUTH[every] > 0, 2), predicted).tolist()
    assert total.pixels.tolist() == [total.confusion[1][1], total.confusion[0][1], *np.array(total.confusion)[::-1, 0]]


def test_names_are_those_of_the_metrics():
    assert tuple(tally(TRUTH, TRUTH).metrics()) == tally_module.NAMES


def test_an_object_cut_in_exact_halves_is_found_once():
    truth, halves = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    truth[2:6, 2:6] = 1
    halves[2:6, 2:4], halves[2:6, 4:6] = 1, 2
    one = tally(truth, halves)
    assert (one.matched[0], one.true, one.predicted) == (1, 1, 2)
    assert one.metrics()["seg"] == 0  # neither half covers more than half


def test_numbers_of_the_labels_do_not_matter():
    found = MISTAKES["split"]
    expected = tally(TRUTH, found).metrics()
    scrambled = np.random.default_rng(1).permutation(int(found.max()) + 1).astype(np.uint32)
    scrambled[scrambled == 0] = len(scrambled)
    scrambled[0] = 0
    assert tally(TRUTH, scrambled[found]).metrics() == pytest.approx(expected)
    far_apart = np.where(found > 0, found.astype(np.uint32) * 1_000_003 + 5, 0).astype(np.uint32)
    assert tally(TRUTH, far_apart).metrics() == expected


def test_many_objects_are_counted_alike(monkeypatch):
    expected = contingency.overlap(TRUTH, MISTAKES["shifted"])
    monkeypatch.setattr(contingency, "MAX_DENSE_ENTRIES", 0)
    sparse = contingency.overlap(TRUTH, MISTAKES["shifted"])
    for name in ("true_area", "predicted_area", "true", "predicted", "area"):
        assert np.array_equal(getattr(sparse, name), getattr(expected, name)), name


@pytest.mark.parametrize(
    ("truth", "found", "number"), [(EMPTY, EMPTY, 1.0), (EMPTY, TRUTH, 0.0), (TRUTH, EMPTY, 0.0), (TRUTH, TRUTH, 1.0)]
)
def test_nothing_there_and_nothing_found(truth, found, number):
    numbers = tally(truth, found).metrics()
    assert tuple(numbers) == NAMES
    assert set(numbers.values()) == {number}
    assert all(type(value) is float for value in numbers.values())
    assert dice_masks(truth, found) == number


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in size"):
        tally(TRUTH, TRUTH[:-1])


def test_examples_in_the_docstrings():
    result = doctest.testmod(tally_module)
    assert result.attempted > 0 and result.failed == 0
