"""refine_masks: degraded true masks of real images improve or stay; parameters, agreement, and what passes through."""

import cv2
import numpy as np
import pytest
from loop_artifacts import Data, dice, payload, real_data
from mask_chain import mean_iou
from real_labels import wheel_nuclei
from small_segmentor import predict_maps, write_encoder, write_model

from components.refine_masks.component import RefineMasks
from components.refine_masks.main import run
from components.refine_masks.pseudo_masks import (
    FILLED_HOLE_CONFIDENCE,
    MIN_EDGE_SCORE,
    clean,
    part_by_instances,
    refine_proposal,
)
from shared.artifacts.kinds import LabelSet
from shared.artifacts.label_set import (
    NOTE_BORDER_REFINEMENT,
    NOTE_HAND_LABELLED,
    NOTE_WATERSHED,
    LabelReader,
    LabelWriter,
    soft_mask,
)
from shared.artifacts.manifest import seal
from shared.artifacts.postprocessing import PostProcessing
from shared.imaging.gradients import edge_score, gradient
from shared.imaging.grey import grey
from shared.system.errors import UserError
from shared.targets import TARGETS


def refine(data: Data, name: str, clusters, previous=None, model=None, **options):
    """Refine as in the first round, with an encoder, unless a segmentor is given."""
    encoder = data.root / "encoder"
    if not encoder.exists():
        write_encoder(encoder)
    given = {"images": data.images, "clusters": clusters, "previous": previous or data.none, "model": model or encoder}
    return run(RefineMasks(**given, labels=data.out(name), **options))


def degraded(mask: np.ndarray, grow: int) -> np.ndarray:
    """Probability (H, W) of a true mask grown or shrunk by a number of px, with a soft border."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(grow) + 1, 2 * abs(grow) + 1))
    changed = (cv2.dilate if grow > 0 else cv2.erode)((mask > 0).astype(np.uint8), kernel)
    return cv2.GaussianBlur(changed.astype(np.float32), (0, 0), max(abs(grow), 1))


def proposals(data: Data, name: str, grow: int) -> float:
    """Write degraded masks as `cluster` would; returns their Dice with the truth."""
    with LabelWriter(data.root / name, "pseudo") as writer:
        for key in sorted(data.masks):
            mask, conf = soft_mask(degraded(data.masks[key], grow))
            writer.add(key, mask, "foreground", conf)
    return data.dice(name)


@pytest.mark.parametrize(
    ("folder", "grow", "gain"),
    [
        ("usiigaci/labelled", 10, 0.04),
        ("usiigaci/labelled", 5, -0.01),
        ("dsb2018/fluo", 6, 0.05),
        ("dsb2018/fluo", 1, -0.01),
        ("dsb2018/histo_purple", 1, -0.012),  # gaps that growing closed stay closed where they are round
    ],
)
def test_degraded_true_masks_gain_or_keep(folder, grow, gain, tmp_path):
    data = real_data(tmp_path, folder, 3)
    before = proposals(data, "clusters", grow)
    result = refine(data, "labels", tmp_path / "clusters")
    assert data.dice("labels") >= before + gain
    assert "<img" in result.page.html()


def test_contradicted_pixels_are_ignored_and_filled_holes_get_half_confidence():
    """The watershed floods up to a square's edges, on one side against the proposal."""
    image = np.zeros((96, 96, 1), np.float32)
    image[16:80, 16:80] = 1
    probability = np.full((96, 96), 0.05, np.float32)
    probability[16:80, 16:60] = 0.9
    probability[16:80, 60:80] = 0.2  # no marker of either class
    probability[36:40, 36:40] = 0.05
    options = {"marker_threshold": 0.85, "ignore_band": 0, "min_area": None}
    found = refine_proposal(probability, image, border_refinement="edges", **options)
    inside = np.s_[20:76, 64:76]
    assert (found.labels[inside] > 0).all() and (found.conf[inside] == 0).all()
    assert (found.conf[28:34, 28:56] == 255).all() and (found.conf[:12] == 255).all()
    assert (found.labels[36:40, 36:40] > 0).all() and (found.conf[36:40, 36:40] == FILLED_HOLE_CONFIDENCE).all()


def test_borders_that_miss_the_edges_are_distinguished_from_those_that_follow_them(tmp_path):
    data = real_data(tmp_path, "dsb2018/fluo", 4)
    image, mask = wheel_nuclei()
    magnitude = gradient(grey(image[..., None]))
    assert edge_score((mask > 0).astype(np.uint8), magnitude) > MIN_EDGE_SCORE
    assert edge_score((np.roll(mask, 15, 0) > 0).astype(np.uint8), magnitude) < MIN_EDGE_SCORE
    assert edge_score(np.zeros_like(mask, np.uint8), magnitude) is None
    for name, grow, watershed in (("near", 1, 0.0), ("far", 8, 1.0)):
        proposals(data, name, grow)
        assert refine(data, f"{name}-labels", tmp_path / name).metrics["watershed"] == watershed


def test_the_border_is_ignored_and_the_inside_is_not(tmp_path):
    image, mask = wheel_nuclei()
    data = Data(tmp_path, [(image, mask)])
    proposals(data, "clusters", 1)
    refine(data, "labels", tmp_path / "clusters", ignore_band_px=2, min_area_px=1)
    seal(tmp_path / "labels", LabelSet)
    reader = LabelReader(tmp_path / "labels")
    found, conf = (reader.mask("image0") > 0).astype(np.uint8), reader.conf("image0")
    assert reader.entries["image0"].kind == "instances" and reader.mask("image0").max() > 50
    inside = cv2.distanceTransform(found, cv2.DIST_C, 3)
    outside = cv2.distanceTransform(1 - found, cv2.DIST_C, 3)
    assert (conf[(inside > 0) & (inside <= 2)] == 0).all()
    assert (conf[(outside > 0) & (outside <= 2)] == 0).all()
    assert (conf[(inside > 4) | (outside > 8)] > 0).mean() > 0.95


@pytest.mark.parametrize("options", [{}, {"watershed": "always", "ignore_band_px": 3, "min_area_px": 500}])
def test_without_refinement_the_proposals_pass_unchanged(options, tmp_path):
    image, mask = wheel_nuclei()
    specks = (mask > 0).astype(np.uint8)
    specks[::40, ::40] = 1
    data = Data(tmp_path, [(image, mask), (image, mask)])
    with LabelWriter(tmp_path / "clusters", "pseudo", {NOTE_HAND_LABELLED: ["image1"]}) as writer:
        writer.add("image0", specks, "foreground", np.full(mask.shape, 40, np.uint8))
        writer.add("image1", mask, "instances")
    seal(tmp_path / "clusters", LabelSet)
    result = refine(data, "labels", tmp_path / "clusters", refine=False, **options)
    seal(tmp_path / "labels", LabelSet)
    found = LabelReader(tmp_path / "labels")
    assert np.array_equal(found.mask("image0"), specks) and (found.conf("image0") == 255).all()
    assert [found.entries[key].kind for key in sorted(found.entries)] == ["foreground", "instances"]
    assert np.array_equal(found.mask("image1"), mask)
    assert found.info.notes[NOTE_BORDER_REFINEMENT] == "none" and result.metrics["ignored_share"] == 0
    area = np.mean([(specks > 0).mean(), (mask > 0).mean()])
    assert result.values == {"agreement": 0.0, "noise": 0.0, "proposed_area": pytest.approx(area)}


def test_agreement_is_the_mean_dice_with_the_round_before(tmp_path):
    image, mask = wheel_nuclei()
    data = Data(tmp_path, [(image, mask), (image.T.copy(), mask.T.copy())])
    proposals(data, "clusters", 1)
    first = refine(data, "first", tmp_path / "clusters").values
    assert (first["agreement"], first["noise"]) == (0.0, 0.0) and 0.1 < first["proposed_area"] < 0.3
    seal(tmp_path / "first", LabelSet)
    assert refine(data, "again", tmp_path / "clusters", tmp_path / "first").values == first | {"agreement": 1.0}
    moved = {"image0": np.roll(LabelReader(tmp_path / "first").mask("image0"), 5, 0)}
    data.labels("moved", moved)
    expected = dice(moved["image0"], LabelReader(tmp_path / "first").mask("image0"))
    found = refine(data, "third", tmp_path / "clusters", tmp_path / "moved").values["agreement"]
    assert found == pytest.approx(expected)  # image1 is not in both, so it does not count
    assert payload(tmp_path / "third") == payload(tmp_path / "again") == payload(tmp_path / "first")


def test_converged_copies_the_round_before(tmp_path):
    image, mask = wheel_nuclei()
    data = Data(tmp_path, [(image, mask)])
    proposals(data, "clusters", 1)
    refine(data, "first", tmp_path / "clusters")
    seal(tmp_path / "first", LabelSet)
    result = refine(data, "second", data.none, tmp_path / "first", skip=True)
    assert "EM loop has ended" in result.skipped
    assert payload(tmp_path / "second") == payload(tmp_path / "first")
    first = seal(tmp_path / "second", LabelSet, skipped=result.skipped)
    refine(data, "third", data.none, tmp_path / "second", skip=True)
    assert seal(tmp_path / "third", LabelSet, skipped=result.skipped).digest == first.digest


def test_nothing_proposed(tmp_path):
    data = Data(tmp_path, [wheel_nuclei()])
    result = refine(data, "labels", data.none)
    assert result.skipped and result.values == {"agreement": 0.0, "noise": 0.0, "proposed_area": 0.0}
    empty = data.labels("empty", {"image0": np.zeros((512, 512), np.uint8)})
    refine(data, "blank", empty)
    seal(tmp_path / "blank", LabelSet)
    assert not LabelReader(tmp_path / "blank").mask("image0").any()


def test_proposals_for_other_images_are_refused(tmp_path):
    image, mask = wheel_nuclei()
    data = Data(tmp_path, [(image, mask)])
    with pytest.raises(UserError, match=r"^--clusters: image 'stranger'"):
        refine(data, "labels", data.labels("foreign", {"stranger": (mask > 0).astype(np.uint8)}))


def test_specks_go_and_holes_close_by_the_images_own_scale():
    _, mask = wheel_nuclei()
    whole = (mask > 0).astype(np.uint8)
    rng = np.random.default_rng(0)
    specks = np.zeros_like(whole)
    for y, x in zip(*(rng.integers(4, 508, 500) for _ in range(2)), strict=True):
        specks[y : y + 3, x : x + 3] = 1
    nearby = cv2.dilate(whole, np.ones((9, 9), np.uint8))
    dirty = whole | (specks & ~nearby & 1)
    inner = cv2.erode(whole, np.ones((7, 7), np.uint8))
    dirty[(specks > 0) & (inner > 0)] = 0
    cleaned, dropped, smallest = clean(dirty, None)
    assert 9 < smallest < np.median(np.bincount(mask.ravel())[1:])
    assert dice(cleaned, whole) > 0.99 > dice(dirty, whole)
    assert dropped.sum() > 200
    assert (clean(dirty, 1)[0] & specks & ~nearby).any()


def test_min_area_px_is_a_number_or_a_share_of_the_typical_object(tmp_path):
    image, mask = wheel_nuclei()
    proposed = (mask > 0).astype(np.uint8)
    proposed[2:8, 2:8] = 1  # 36 px²; nuclei have about 600
    data = Data(tmp_path, [(image, mask)])
    with LabelWriter(tmp_path / "clusters", "pseudo") as writer:
        writer.add("image0", proposed, "foreground")
    seal(tmp_path / "clusters", LabelSet)
    kept = {}
    for name, options in (("auto", {}), ("few", {"min_area_px": 1000}), ("all", {"min_area_px": 20})):
        result = refine(data, name, tmp_path / "clusters", watershed="never", **options)
        seal(tmp_path / name, LabelSet)
        kept[name] = (LabelReader(tmp_path / name).mask("image0") > 0, result.metrics["min_area"])
    assert kept["few"][1] == 1000 and kept["all"][1] == 20 and 36 < kept["auto"][1] < 600
    assert kept["few"][0].sum() < kept["auto"][0].sum() < kept["all"][0].sum()
    assert not (kept["few"][0] & ~kept["auto"][0]).any() and not kept["auto"][0][2:8, 2:8].any()


@pytest.mark.parametrize(
    ("watershed", "labelled", "expected"), [("always", [], 0.2), ("always", ["image0"], 0.0), ("never", [], 0.0)]
)
def test_noise_is_expected_where_the_watershed_found_the_borders(watershed, labelled, expected, tmp_path):
    image, mask = wheel_nuclei()
    data = Data(tmp_path, [(image, mask)])
    with LabelWriter(tmp_path / "clusters", "pseudo", {NOTE_HAND_LABELLED: labelled}) as writer:
        writer.add("image0", *soft_mask(degraded(mask, 2))[:1], "foreground")
    seal(tmp_path / "clusters", LabelSet)
    result = refine(data, "labels", tmp_path / "clusters", watershed=watershed, expected_noise=0.2)
    assert result.values["noise"] == expected
    seal(tmp_path / "labels", LabelSet)
    notes = LabelReader(tmp_path / "labels").info.notes
    assert notes[NOTE_WATERSHED] == (watershed == "always") == result.metrics["watershed"]


def test_the_first_round_decides_whether_the_watershed_is_used(tmp_path):
    image, mask = wheel_nuclei()
    data = Data(tmp_path, [(image, mask)])
    proposals(data, "near", 1)
    proposals(data, "far", 8)
    assert refine(data, "first", tmp_path / "far").metrics["watershed"] == 1
    seal(tmp_path / "first", LabelSet)
    assert refine(data, "alone", tmp_path / "near").metrics["watershed"] == 0
    assert refine(data, "second", tmp_path / "near", tmp_path / "first").metrics["watershed"] == 1


def test_from_the_second_round_on_the_segmentors_instances_part_the_masks(tmp_path):
    image, labels = wheel_nuclei()
    data = Data(tmp_path, [(image[:256, :256], labels[:256, :256])])
    proposals(data, "proposed", 0)
    model = write_model(tmp_path / "segmentor")
    refine(data, "by_image", data.root / "proposed", model=model, part_by="image")
    refine(data, "first", data.root / "proposed", part_by="model")
    refine(data, "by_model", data.root / "proposed", model=model, part_by="model")
    refine(data, "auto", data.root / "proposed", model=model)
    for name in ("by_image", "first", "by_model", "auto"):
        seal(data.root / name, LabelSet)
    found = {name: LabelReader(data.root / name).mask("image0") for name in ("by_image", "first", "by_model", "auto")}
    np.testing.assert_array_equal(found["auto"], found["first"], "the watershed did not find these borders")
    np.testing.assert_array_equal(found["by_image"], found["first"])
    np.testing.assert_array_equal(found["by_model"] > 0, found["first"] > 0)
    plane = image[:256, :256, None]
    instances = TARGETS["foreground_distance"].decode(predict_maps(plane), plane, PostProcessing()).labels
    wanted = part_by_instances(found["first"], instances)
    assert mean_iou(wanted, found["by_model"])[0] > 0.99
    assert mean_iou(found["first"], found["by_model"])[0] < 0.999, "they differ, or this tests nothing"


def test_parts_are_those_of_the_instances_grown_within_the_mask():
    labels = np.zeros((20, 40), np.uint16)
    labels[2:12, 2:22], labels[2:12, 26:36], labels[14:18, 2:8] = 1, 2, 3
    instances = np.zeros(labels.shape, np.int32)
    instances[4:10, 3:8], instances[4:10, 14:20], instances[0:14, 27:30] = 7, 9, 4
    parted = part_by_instances(labels, instances)
    np.testing.assert_array_equal(parted > 0, labels > 0)
    assert len(np.unique(parted[2:12, 2:22])) == 2, "two instances part one mask"
    assert parted[5, 9] == parted[5, 4] and parted[5, 13] == parted[5, 16], "each pixel goes to the nearer one"
    assert len(np.unique(parted[2:12, 26:36])) == 1 and len(np.unique(parted[14:18, 2:8])) == 1
    assert sorted(np.unique(parted)) == [0, 1, 2, 3, 4]


def test_masks_without_an_instance_keep_their_parts():
    labels = np.zeros((10, 20), np.uint16)
    labels[2:8, 2:9], labels[2:8, 9:16] = 1, 2
    np.testing.assert_array_equal(part_by_instances(labels, np.zeros(labels.shape, np.int32)), labels)
