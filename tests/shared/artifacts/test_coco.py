"""COCO annotations equal those that pycocotools encodes, and it loads them."""

import json

import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from real_labels import mistakes, real_pairs, wheel_nuclei

from shared.artifacts.coco import CELL, dataset, instance_annotations, label_rles

TRUTH = wheel_nuclei()[1]
SPLIT = mistakes(TRUTH)["split"]


@pytest.mark.parametrize("labels", [TRUTH, SPLIT, TRUTH[:, :200].astype(np.uint32), np.ones((3, 5), np.uint8)])
def test_run_lengths_equal_those_of_pycocotools(labels):
    ours = label_rles(labels)
    assert list(ours) == [name for name in np.unique(labels).tolist() if name]
    for name, code in ours.items():
        theirs = rle.encode(np.asfortranarray(labels == name).astype(np.uint8))
        assert code == {"size": list(labels.shape), "counts": theirs["counts"].decode()}


def test_objects_at_the_border():
    for place in (np.s_[0, 0], np.s_[-1, -1], np.s_[:, 2], np.s_[1, :], np.s_[:, :], np.s_[-1, 0]):
        labels = np.zeros((4, 6), np.uint8)
        labels[place] = 3
        code = label_rles(labels)[3]
        assert np.array_equal(rle.decode(code), labels == 3)
    assert label_rles(np.zeros((4, 6), np.uint8)) == {}


def test_pycocotools_loads_instance_annotations(tmp_path):
    frames = [TRUTH, *(truth for _, truth in real_pairs("dsb2018/fluo", 2))]
    images = [
        {"id": i, "file_name": f"{i}.tif", "height": labels.shape[0], "width": labels.shape[1]}
        for i, labels in enumerate(frames, 1)
    ]
    found = []
    for i, labels in enumerate(frames, 1):
        found += instance_annotations(labels, i, len(found) + 1)
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(dataset(images, found, CELL)))
    coco = COCO(str(path))
    assert sorted(coco.getAnnIds()) == list(range(1, len(found) + 1))
    for i, labels in enumerate(frames, 1):
        loaded = coco.loadAnns(coco.getAnnIds(imgIds=i))
        assert len(loaded) == len(np.unique(labels)) - 1
        for item in loaded:
            mask = coco.annToMask(item).astype(bool)
            assert np.array_equal(mask, labels == item["label"])
            y, x = np.nonzero(mask)
            assert item["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert item["area"] == mask.sum()
    assert coco.loadRes([found[0] | {"score": 1.0}]).getAnnIds() == [1]
