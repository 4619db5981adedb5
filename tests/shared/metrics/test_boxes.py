"""Average precision and the precision-recall curve of boxes are those of pycocotools, on real boxes."""

from dataclasses import replace

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from real_boxes import BCCD_CLASSES, bccd_boxes, detections_like

from shared.artifacts.annotation import Annotation
from shared.metrics.box_matching import box_iou, match_boxes
from shared.metrics.boxes import ALL, Boxes, best_threshold, box_metrics, precision_recall

CELL = Annotation("cell", (10, 10, 20, 20), 400)


def theirs(truth: Boxes, found: Boxes, most: int) -> COCOeval:
    """pycocotools on the same boxes, with categories numbered by BCCD_CLASSES."""
    sets = []
    for boxes in (truth, found):
        rows = []
        for image_id, key in enumerate(truth, 1):
            for item in boxes.get(key, []):
                row = {"id": len(rows) + 1, "image_id": image_id, "category_id": BCCD_CLASSES.index(item.category)}
                row |= {"bbox": list(item.bbox), "iscrowd": item.iscrowd, "area": item.area, "score": item.score}
                rows.append(row)
        data = COCO()
        data.dataset = {
            "images": [{"id": number} for number in range(1, len(truth) + 1)],
            "categories": [{"id": i, "name": name} for i, name in enumerate(BCCD_CLASSES)],
            "annotations": rows,
        }
        data.createIndex()
        sets.append(data)
    evaluation = COCOeval(*sets, iouType="bbox")
    evaluation.params.maxDets = [1, 10, most]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def expected(evaluation: COCOeval, name: str) -> float:
    """A metric of ours from the arrays of pycocotools."""
    precision, recall = evaluation.eval["precision"][..., -1], evaluation.eval["recall"][..., -1]
    head, _, rest = name.partition("_")
    values = recall if head == "ar" else precision
    values = values[{"ap50": np.s_[:1], "ap75": np.s_[5:6]}.get(head, np.s_[:])]
    sizes = {"small": 1, "medium": 2, "large": 3}
    values = values[..., BCCD_CLASSES.index(rest), 0] if rest in BCCD_CLASSES else values[..., sizes.get(rest, 0)]
    return float(values[values > -1].mean())


@pytest.fixture(scope="module")
def scene() -> tuple[dict, dict]:
    """Boxes of BCCD with small objects, crowd regions, an image without objects and one without predictions."""
    truth = bccd_boxes("val", 40)
    rng = np.random.default_rng(1)
    for key, items in truth.items():
        crowds = [replace(item, iscrowd=int(rng.random() < 0.15)) for item in items]
        tiny = [Annotation(item.category, (*item.bbox[:2], 25.0, 28.0), 700.0) for item in items if rng.random() < 0.1]
        truth[key] = crowds + tiny
    found = detections_like(truth)
    keys = list(truth)
    truth[keys[3]], found[keys[5]] = [], []
    del found[keys[7]]
    return truth, found


def test_average_precision_equals_pycocotools(scene, capsys):
    truth, found = scene
    ours, evaluation = box_metrics(truth, found), theirs(truth, found, 100)
    assert set(ours) == {
        *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar"),
        *(f"{name}_{of}" for name in ("ap", "ap50") for of in BCCD_CLASSES),
    }
    for name, value in ours.items():
        assert value == pytest.approx(expected(evaluation, name), abs=1e-9), name
    assert 0.3 < ours["ap50"] < 0.95 and 0.1 < ours["ap"] < ours["ap50"]
    assert len({round(value, 6) for value in ours.values()}) == len(ours)


@pytest.mark.parametrize("most", [None, 10, 100, 300])
def test_more_boxes_than_cocos_limit(most):
    """Four hundred boxes of a class in one image: by default all count."""
    truth = bccd_boxes("val", 50)
    cells = [
        replace(item, bbox=(640 * i + item.bbox[0], *item.bbox[1:]))
        for i, items in enumerate(truth.values())
        for item in items
    ]
    crowded = {"all": [item for item in cells if item.category == "RBC"][:420], "other": truth[list(truth)[4]]}
    found = detections_like(crowded)
    scores = np.random.default_rng(3).random(420).round(3).tolist()
    found["all"] = [replace(item, score=score) for item, score in zip(crowded["all"], scores, strict=True)]
    ours = box_metrics(crowded, found, max_detections=most)
    evaluation = theirs(crowded, found, most or len(found["all"]))
    for name, value in ours.items():
        assert value == pytest.approx(expected(evaluation, name), abs=1e-9), name
    if most is None:
        recall = precision_recall(crowded, found)["RBC"].recall[-1]
        assert recall == pytest.approx(evaluation.eval["recall"][0, BCCD_CLASSES.index("RBC"), 0, -1])
    assert ours["ap50_RBC"] > 0.98 if most is None else ours["ap50_RBC"] < 0.95


def test_the_curve_is_that_of_pycocotools(scene):
    """The envelope of precision at COCO's 101 recalls, and which boxes match which objects."""
    truth, found = scene
    evaluation, curves = theirs(truth, found, 100), precision_recall(truth, found)
    assert list(curves) == [ALL, *BCCD_CLASSES]
    for number, name in enumerate(BCCD_CLASSES):
        curve = curves[name]
        assert (np.diff(curve.thresholds) < 0).all() and (np.diff(curve.recall) >= 0).all()
        at = evaluation.params.recThrs
        envelope = np.array([curve.precision[curve.recall >= recall].max(initial=0) for recall in at])
        # pycocotools has a point for each box, ours for each score: boxes of equal score are one step
        assert np.abs(envelope - evaluation.eval["precision"][0, :, number, 0, -1]).mean() < 0.02
        assert curve.recall[-1] == pytest.approx(evaluation.eval["recall"][0, number, 0, -1])
    assert curves[ALL].objects == sum(curves[name].objects for name in BCCD_CLASSES)


def test_matches_are_those_of_pycocotools(scene):
    truth, found = scene
    evaluation, compared = theirs(truth, found, 100), 0
    for image in evaluation.evalImgs:
        if image is None or image["aRng"] != evaluation.params.areaRng[0]:
            continue
        name, key = BCCD_CLASSES[image["category_id"]], list(truth)[image["image_id"] - 1]
        ours = match_boxes(*([item for item in side.get(key, []) if item.category == name] for side in (truth, found)))
        assert ours.scores.tolist() == image["dtScores"]
        assert ((ours.partner >= 0) == (image["dtMatches"][0] > 0)).all()
        assert (ours.ignored == (image["dtIgnore"][0] > 0)).all()
        assert ours.objects == (np.array(image["gtIgnore"]) == 0).sum()
        compared += len(ours.scores)
    assert compared > 300


def test_the_best_threshold_is_the_one_that_an_exhaustive_search_finds(scene):
    truth, found = dict(list(scene[0].items())[:6]), scene[1]
    for name, curve in precision_recall(truth, found).items():
        threshold, f1 = best_threshold(curve)
        every = {}
        for cut in sorted({item.score for key in truth for item in found.get(key, [])}):
            kept = {key: [item for item in items if item.score >= cut] for key, items in found.items()}
            every[cut] = precision_recall(truth, kept)[name].f1[-1:].sum()
        assert f1 == pytest.approx(max(every.values())) and 0.3 < f1 < 1
        assert threshold == max(cut for cut, value in every.items() if value == pytest.approx(f1))


def test_perfect_absent_and_unknown():
    truth = {"a": [CELL], "b": []}
    assert set(box_metrics(truth, {"a": [replace(CELL, score=0.3)]}).values()) == {1.0}
    nothing = box_metrics(truth, {})
    assert set(nothing.values()) == {0.0} and set(nothing) == {
        "ap",
        "ap50",
        "ap75",
        "ap_small",
        "ar",
        "ap_cell",
        "ap50_cell",
    }
    assert best_threshold(precision_recall(truth, {})[ALL]) == (1.0, 0.0)
    assert box_metrics({"a": []}, {"a": [CELL]}) == {} == precision_recall({"a": []}, {"a": [CELL]})
    assert box_metrics({}, {}) == {}
    other = [replace(CELL, category="unknown", score=0.9), replace(CELL, score=0.8)]
    assert box_metrics(truth, {"a": other})["ap50"] == 1  # as in COCO
    assert precision_recall(truth, {"a": other})[ALL].precision.tolist() == [0, 0.5]
    assert precision_recall(truth, {"a": other})["cell"].precision.tolist() == [1]


def test_a_box_on_a_crowd_region_is_neither_right_nor_wrong():
    crowd = Annotation("cell", (50, 50, 100, 100), 10000, iscrowd=1)
    inside = [replace(CELL, bbox=(60 + 20 * i, 60, 20, 20), score=0.9) for i in range(3)]
    assert box_iou([crowd], inside).tolist() == [[1.0]] * 3
    curve = precision_recall({"a": [CELL, crowd]}, {"a": [*inside, replace(CELL, score=0.5)]})["cell"]
    assert curve.precision.tolist() == [1] and curve.recall.tolist() == [1] and curve.objects == 1
