"""LabelSets: label images, confidence, annotations and classes survive a round trip; equal labels give equal bytes."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from shared.artifacts.annotation import Annotation, ImageClass
from shared.artifacts.image_codec import decode_labels, encode_labels
from shared.artifacts.kinds import ImageSet, LabelSet
from shared.artifacts.label_set import (
    CLASSES_FILE,
    INFO_FILE,
    LabelReader,
    LabelWriter,
    soft_mask,
)
from shared.artifacts.manifest import seal, verify
from shared.system.errors import ArtifactError


def labels(top: int, dtype: type) -> np.ndarray:
    return (
        np.arange(40 * 30).reshape(40, 30) % (top + 1)
        if top < 1200
        else np.arange(1200).reshape(40, 30) * (top // 1199)
    ).astype(dtype)


@pytest.mark.parametrize(
    ("top", "dtype", "stored"),
    [
        (0, np.uint8, np.uint8),
        (1, np.bool_, np.uint8),
        (255, np.uint8, np.uint8),
        (255, np.uint32, np.uint8),  # the smallest type that holds them
        (256, np.uint16, np.uint16),
        (65_535, np.uint32, np.uint16),
        (1_000_000, np.uint32, np.uint32),
    ],
)
def test_label_images_survive_a_round_trip(tmp_path, top, dtype, stored):
    before = labels(top, dtype)
    extension, data = encode_labels(before)
    after = decode_labels(data)
    assert after.dtype == stored and np.array_equal(after, before)
    assert encode_labels(before)[1] == data == encode_labels(np.asfortranarray(before))[1]
    (tmp_path / f"m.{extension}").write_bytes(data)
    other = tifffile.imread(tmp_path / "m.tif") if extension == "tif" else np.asarray(Image.open(tmp_path / "m.png"))
    assert np.array_equal(other, before)


@settings(deadline=None, max_examples=50)
@given(
    npst.arrays(
        st.sampled_from([np.uint8, np.uint16, np.uint32]),
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
    )
)
def test_any_label_image_survives_a_round_trip(array):
    assert np.array_equal(decode_labels(encode_labels(array)[1]), array)


@pytest.mark.parametrize("bad", [np.zeros((3, 4, 1), np.uint8), np.zeros((3, 4)), np.zeros((3, 4), np.int32)])
def test_other_arrays_are_refused(bad):
    with pytest.raises(ValueError, match="label image"):
        encode_labels(bad)


def write(folder, origin="truth"):
    with LabelWriter(folder, origin, {"layout": "flat", "threshold": 0.5}) as writer:
        writer.add("a", labels(9, np.uint16), "instances")
        conf = np.full((40, 30), 7, np.uint8)
        writer.add("a-b", labels(1, np.uint8), "foreground", conf, {"cluster": labels(5, np.uint8)})
        writer.classify("a", "negative")
        writer.classify("z", "positive")
        writer.annotate("a", (40, 30), [])
    return folder


def test_a_set_survives_a_round_trip(tmp_path):
    seal(write(tmp_path / "set"), LabelSet)
    reader = LabelReader(tmp_path / "set")
    assert reader.keys() == ["a", "a-b"] and len(reader) == 2
    assert np.array_equal(reader.mask("a"), labels(9, np.uint16)) and reader.entries["a"].kind == "instances"
    assert (reader.conf("a") == 255).all() and (reader.conf("a-b") == 7).all()
    assert np.array_equal(reader.plane("a-b", "cluster"), labels(5, np.uint8))
    with pytest.raises(KeyError):
        reader.plane("a", "cluster")
    assert reader.info.origin == "truth" and reader.info.notes == {"layout": "flat", "threshold": 0.5}
    assert reader.classes() == {"a": "negative", "z": "positive"} and reader.coco()["images"][0]["file_name"] == "a"


def test_an_empty_set_is_readable(tmp_path):
    with LabelWriter(tmp_path / "set", "truth"):
        pass
    seal(tmp_path / "set", LabelSet)
    reader = LabelReader(tmp_path / "set")
    assert (reader.keys(), reader.classes(), reader.boxes(), reader.info.notes) == ([], {}, {}, {})
    assert not reader.contents() and reader.coco()["images"] == []


def test_a_set_of_boxes_alone(tmp_path):
    box, outlined = Annotation("RBC", (1.5, 2, 3, 4), 12), Annotation("WBC", (0, 0, 2, 2), 4, {"size": [2, 2]}, 1)
    with LabelWriter(tmp_path / "set", "truth") as writer:
        writer.annotate("a", (20, 30), [box, outlined])
        writer.annotate("b", (20, 30), [])
    seal(tmp_path / "set", LabelSet)
    reader = LabelReader(tmp_path / "set")
    assert reader.annotations() == {"a": [box, outlined], "b": []}
    assert reader.boxes() == {"a": [(1.5, 2, 3, 4), (0, 0, 2, 2)], "b": []}
    contents = reader.contents()
    assert contents and (contents.label_images, contents.annotations, contents.classes) == (0, 2, 0)
    assert len(reader) == 0 and reader.classes() == {}


def test_a_set_of_classes_alone(tmp_path):
    with LabelWriter(tmp_path / "set", "corrected") as writer:
        writer.classify("a", 'uninfected, "clean"')
        writer.classify("b", "infected")
    seal(tmp_path / "set", LabelSet)
    reader = LabelReader(tmp_path / "set")
    assert reader.classes() == {"a": 'uninfected, "clean"', "b": "infected"} and reader.class_scores() == {}
    contents = reader.contents()
    assert contents and (contents.label_images, contents.annotations, contents.classes) == (0, 0, 2)
    assert reader.info.origin == "corrected" and reader.boxes() == {}


def test_a_predicted_class_keeps_all_that_is_known_of_it(tmp_path):
    chances = {"negative": 0.333333343, "positive": 2e-07}
    known = ImageClass("negative", 0.3333, chances, "abstain", 'far, "very far"', 142.857147)
    few = ImageClass("positive", 0.75, {"positive": 0.75})
    with LabelWriter(tmp_path / "set", "prediction") as writer:
        writer.classify("a", known)
        writer.classify("b", few)
        writer.classify("c", "negative")
        writer.classify("d", ImageClass("x", probabilities={"x": np.float32(1 / 3)}))
    seal(tmp_path / "set", LabelSet)
    reader = LabelReader(tmp_path / "set")
    found = reader.image_classes()
    assert np.float32(found.pop("d").probabilities["x"]) == np.float32(1 / 3)
    assert found == {"a": known, "b": few, "c": ImageClass("negative")}
    header, first, *_ = (tmp_path / "set" / CLASSES_FILE).read_text().splitlines()
    assert header == "key,class,score,p_negative,p_positive,p_x,outcome,reason,distance"
    assert first.startswith("a,negative,0.3333,0.333333343,2e-07,,abstain,")


@pytest.mark.parametrize("row", ["a,x,high,positive", "a,x,0.5,perhaps"])
def test_a_table_of_classes_that_is_not_ours_is_refused(row, tmp_path):
    with LabelWriter(tmp_path / "set", "prediction") as writer:
        writer.classify("a", "x", 0.5)
    (tmp_path / "set" / CLASSES_FILE).write_text(f"key,class,score,outcome\n{row}\n")
    with pytest.raises(ArtifactError, match=r"classes.csv: not readable \(.*; make the artifact again"):
        LabelReader(tmp_path / "set", sealed=False).classes()


def test_predictions_of_every_kind_carry_scores(tmp_path):
    with LabelWriter(tmp_path / "set", "prediction") as writer:
        writer.add("a", labels(2, np.uint8), "instances", scores=np.float32([0.25, 0.123456]))
        writer.annotate("a", (40, 30), [Annotation("cell", (1, 2, 3, 4), 12, score=0.987654)])
        writer.classify("a", "positive", 0.5)
        writer.classify("b", "negative", 0.99996)
    seal(tmp_path / "set", LabelSet)
    reader = LabelReader(tmp_path / "set")
    assert reader.entries["a"].scores == (0.25, 0.1235)
    assert [item.score for item in reader.annotations()["a"]] == [0.9877]
    assert reader.classes() == {"a": "positive", "b": "negative"} and reader.class_scores() == {"a": 0.5, "b": 1.0}
    assert reader.info.origin == "prediction"


def test_a_payload_is_read_before_it_is_sealed(tmp_path):
    write(tmp_path / "set")
    with pytest.raises(ArtifactError, match=r"artifact\.json"):
        LabelReader(tmp_path / "set")
    assert LabelReader(tmp_path / "set", sealed=False).contents().classes == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [], "annotations": [{"image_id": 1}], "categories": []}'])
def test_annotations_that_are_not_readable_are_named(tmp_path, text):
    folder = write(tmp_path / "set")
    (folder / "annotations.coco.json").write_text(text)
    seal(folder, LabelSet)
    with pytest.raises(ArtifactError, match=r"annotations\.coco\.json"):
        LabelReader(folder).contents()


def test_equal_sets_have_equal_digests(tmp_path):
    one, two = (seal(write(tmp_path / name), LabelSet).digest for name in "xy")
    assert one == two != seal(write(tmp_path / "z", "pseudo"), LabelSet).digest


def test_masks_and_confidence_of_one_image_have_one_size(tmp_path):
    with pytest.raises(ValueError, match="conf"), LabelWriter(tmp_path / "set", "truth") as writer:
        writer.add("a", labels(1, np.uint8), "foreground", np.zeros((3, 3), np.uint8))


@settings(deadline=None, max_examples=50)
@given(npst.arrays(np.float32, (4, 5), elements=st.floats(0, 1, width=32)))
def test_soft_masks_keep_the_probability(tmp_path_factory, probability):
    folder = tmp_path_factory.mktemp("soft")
    with LabelWriter(folder / "set", "prediction") as writer:
        writer.add("a", *_soft(probability))
    seal(folder / "set", LabelSet)
    assert np.abs(LabelReader(folder / "set").probability("a") - probability).max() <= 0.5 / 255


def _soft(probability):
    mask, conf = soft_mask(probability)
    return mask, "foreground", conf


@pytest.mark.parametrize("key", ["a", "a-b"])
def test_keys_ascend(tmp_path, key):
    with pytest.raises(ValueError, match="ascending"), LabelWriter(tmp_path / "set", "truth") as writer:
        writer.add("a-b", labels(1, np.uint8), "instances")
        writer.add(key, labels(10**6, np.uint32), "instances")
    assert not (tmp_path / "set/index.jsonl").exists()


@pytest.mark.parametrize("call", [lambda w, key: w.annotate(key, (4, 5), []), lambda w, key: w.classify(key, "x")])
def test_keys_of_annotations_and_classes_ascend(tmp_path, call):
    with pytest.raises(ValueError, match="ascending"), LabelWriter(tmp_path / "set", "truth") as writer:
        call(writer, "b")
        call(writer, "a")


def test_broken_sets_are_named(tmp_path):
    folder = write(tmp_path / "set")
    seal(folder, LabelSet)
    with pytest.raises(ArtifactError, match="ImageSet is needed"):
        verify(folder, ImageSet)
    info = folder / INFO_FILE
    info.write_text(json.dumps({"origin": "guess"}))
    with pytest.raises(ArtifactError, match="labelset"):
        LabelReader(folder)
    with pytest.raises(ArtifactError, match="labelset"):
        verify(folder, LabelSet)
