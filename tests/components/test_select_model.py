"""`select_model`: of two real segmentors the better one is selected, with labels and without."""

import copy
from pathlib import Path

import pytest
import torch
from real_labels import wheel_nuclei
from small_segmentor import CONFIG, predict_maps, trained, write_encoder, write_images, write_model, write_truth

from components.select_model.component import SelectModel
from components.select_model.criteria import Assessment, area_drifts, area_drifts_unlabelled, is_better
from components.select_model.decision import Comparison
from components.select_model.main import run
from shared.artifacts.kinds import Model
from shared.artifacts.manifest import hash_folder, seal
from shared.instances.postprocess import postprocess
from shared.metrics.tally import tally
from shared.models.config import SegmentorConfig
from shared.models.files import load_config, load_state, save_model
from shared.models.load import load_model
from shared.models.segmentor import Segmentor
from shared.system.errors import UserError

IMAGE, LABELS = wheel_nuclei()


def output_layer(segmentor: Segmentor) -> torch.nn.Conv2d:
    return segmentor.decoder.head[2]


class Case:
    """Images with labels; a good segmentor, the same with a weakness for foreground, and an encoder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        part = IMAGE[:200, :200][..., None]
        self.images = write_images(root / "images", {"a": part})
        self.truth = write_truth(root / "truth", {"a": LABELS[:200, :200]})
        self.good = write_model(root / "good")
        worse = copy.deepcopy(trained())
        with torch.no_grad():
            output_layer(worse).bias[0] += 2.5
        self.worse = self.segmentor("worse", worse)
        self.encoder = write_encoder(root / "encoder")

    def segmentor(self, name: str, segmentor: Segmentor, config: SegmentorConfig = CONFIG) -> Path:
        save_model(self.root / name, segmentor.state_dict(), config, "")
        seal(self.root / name, Model)
        return self.root / name

    def __call__(self, out: Path, candidate: Path, incumbent: Path, **more):
        out.mkdir()
        given = {"images": self.images, "truth": self.truth, "candidate": candidate, "incumbent": incumbent} | more
        given = {"round_number": 1, "incumbent_round": 0} | given
        result = run(SelectModel(**given, best=out, tile=128))
        return result, {name: file.sha256 for name, file in hash_folder(out).items()}


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    return Case(tmp_path_factory.mktemp("select_model"))


def weights(model: Path) -> str:
    return hash_folder(model)["model.safetensors"].sha256


def is_remark(text: str) -> bool:
    """One to three sentences, of which every report can show all."""
    return text[0].isupper() and text.endswith(".") and len(text) < 300


@pytest.mark.parametrize("use_labels", [0, 1])
def test_the_better_one_is_selected_with_labels_and_without(case, tmp_path, use_labels):
    result, kept = case(tmp_path / "a", case.worse, case.good, use_labels=use_labels)
    assert kept["model.safetensors"] == weights(case.good) != weights(case.worse)
    assert result.values["best_round"] == 0 and result.metrics["accepted"] == 0 and is_remark(result.remark)
    result, kept = case(tmp_path / "b", case.good, case.worse, use_labels=use_labels, candidate_weight=1)
    assert kept["model.safetensors"] == weights(case.good)
    assert result.values["best_round"] == 1 and result.metrics["accepted"] == 1 and is_remark(result.remark)
    assert ("dice" in result.metrics) == bool(use_labels) and set(SelectModel.curves) <= set(result.metrics)


def test_a_better_round_is_averaged_with_the_one_before(case, tmp_path):
    result, kept = case(tmp_path / "a", case.good, case.worse, candidate_weight=0.6)
    assert result.values["best_round"] == 1 and result.metrics["averaged"] == 1
    assert "round 0" in result.remark and "60 %" in result.remark
    assert load_config(tmp_path / "a", SegmentorConfig) == CONFIG
    assert kept["config.json"] == hash_folder(case.good)["config.json"].sha256
    found, good, worse = (load_state(folder) for folder in (tmp_path / "a", case.good, case.worse))
    assert found.keys() == good.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, worse[name].lerp(good[name], 0.6), rtol=0, atol=1e-6)
    assert sum(not torch.allclose(good[name], worse[name]) for name in good) == 1


def test_an_average_that_is_worse_than_the_incumbent_is_not_selected(case, tmp_path):
    """The good one with its hidden channels in another order predicts the same, but lies in another basin."""
    permuted = copy.deepcopy(trained())
    full, head = permuted.decoder.full, permuted.decoder.head
    for first, last, columns in (
        (head[0], head[2], slice(None)),
        (full[0], full[2], slice(None)),
        (full[2], head[0], slice(len(full[2].bias), None)),
    ):
        order = torch.randperm(len(first.bias), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            first.weight.copy_(first.weight[order])
            first.bias.copy_(first.bias[order])
            last.weight[:, columns] = last.weight[:, columns][:, order]
    candidate = case.segmentor("permuted", permuted)
    result, kept = case(tmp_path / "a", candidate, case.good, use_labels=1)
    assert result.metrics["accepted"] == 1 and result.metrics["averaged"] == 0
    assert kept["model.safetensors"] == weights(candidate) and "%" not in result.remark
    pictures = result.page.html().count("data:image/")
    assert pictures == 4, "the input, both models and their average"


def test_a_foreground_that_drifts_in_small_steps_ends_the_loop(case, tmp_path):
    """No round is far from the one before, but the last is far from the first."""
    result, kept = case(tmp_path / "a", case.good, case.worse, candidate_weight=1)
    share, first = result.metrics["foreground_share"], result.values["initial_area_out"]
    assert first > share and result.metrics["accepted"] == 1 and not result.values["done"]
    assert case(tmp_path / "b", case.good, case.worse, initial_area=share)[0].values["initial_area_out"] == share
    result, kept = case(tmp_path / "c", case.good, case.worse, initial_area=min(1, 1.6 * share))
    assert result.metrics["accepted"] == 0 and result.values["done"] and result.values["stop_reason"] == "drift"
    assert kept["model.safetensors"] == weights(case.worse) and f"{100 * share:.1f} %" in result.remark


def test_the_initial_area_is_ignored_in_round_0_and_where_it_is_nothing(case, tmp_path):
    for name, given in (("a", {"round_number": 0, "initial_area": 0.9}), ("b", {"initial_area": 0.0})):
        result, _ = case(tmp_path / name, case.good, case.worse, candidate_weight=1, **given)
        area = case(tmp_path / f"{name}0", case.worse, case.encoder)[0].metrics["foreground_share"]
        assert result.values["initial_area_out"] == area and result.values["stop_reason"] == ""


@pytest.mark.parametrize("more", [{"incumbent_round": -1}, {"candidate_weight": 1.0}, {"incumbent": "other"}])
def test_only_rounds_of_this_loop_are_averaged(case, tmp_path, more):
    architecture = CONFIG.architecture.model_copy(update={"width": 8})
    other = CONFIG.model_copy(update={"architecture": architecture})
    torch.manual_seed(0)
    given = {"incumbent": case.worse} | more
    given["incumbent"] = case.segmentor("other", Segmentor(other), other) if "incumbent" in more else case.worse
    result, kept = case(tmp_path / "a", case.good, use_labels=1, **given)
    assert result.values["best_round"] == 1 and kept["model.safetensors"] == weights(case.good)
    assert "%" not in result.remark and result.metrics["averaged"] == 0


@pytest.mark.parametrize("use_labels", [0, 1])
def test_always_accept_selects_a_worse_one(case, tmp_path, use_labels):
    result, kept = case(tmp_path / "a", case.worse, case.good, use_labels=use_labels, always_accept=True)
    assert kept["model.safetensors"] == weights(case.worse)
    assert result.values["best_round"] == 1 and result.metrics["accepted"] == 0 and result.metrics["averaged"] == 0
    assert "--always_accept" in result.remark and is_remark(result.remark)


@pytest.mark.parametrize(("round_number", "done"), [(1, False), (2, True), (3, True)])
def test_the_loop_ends_two_rounds_after_the_best_one(case, tmp_path, round_number, done):
    result, _ = case(tmp_path / "a", case.worse, case.good, round_number=round_number)
    assert result.values["best_round"] == 0 and result.values["done"] == done
    assert result.values["stop_reason"] == ("no better" if done else "")
    assert (f"for {round_number} rounds" in result.remark) == done and is_remark(result.remark)


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_is_the_number_of_rounds_without_a_better_one(case, tmp_path, patience):
    for number in (patience - 1, patience):
        given = {"round_number": 5 + number, "incumbent_round": 5, "patience": patience}
        result, _ = case(tmp_path / str(number), case.worse, case.good, **given)
        assert result.values["done"] == (number == patience)


@pytest.mark.parametrize(("refinement", "accepted"), [("means", 0), ("edges", 1), ("none", 1)])
def test_after_refined_first_masks_the_edge_score_must_rise_more(case, tmp_path, refinement, accepted):
    """The candidate's edge score is 1.08 times the incumbent's."""
    settings = CONFIG.postprocessing.model_copy(update={"border_refinement": refinement})
    config = CONFIG.model_copy(update={"postprocessing": settings})
    weaker = copy.deepcopy(trained())
    with torch.no_grad():
        output_layer(weaker).bias[0] += 1
    pair = (
        case.segmentor(f"better-{refinement}", trained(), config),
        case.segmentor(f"weaker-{refinement}", weaker, config),
    )
    result, _ = case(tmp_path / "a", *pair)
    assert result.metrics["accepted"] == accepted
    assert result.values["stop_reason"] == ("" if accepted else "no better")
    assert ("10 %" in result.remark) == (not accepted) and is_remark(result.remark)
    first = case(tmp_path / "b", *pair, incumbent_round=-1)[0]
    assert first.metrics["accepted"] == 1, "the user's model was not trained on refined masks"


def test_the_loop_converges_only_if_the_segmentor_is_no_better(case, tmp_path):
    same = {"agreement": 0.98}
    better, _ = case(tmp_path / "a", case.good, case.worse, **same)
    assert better.metrics["accepted"] == 1 and not better.values["done"] and better.values["stop_reason"] == ""
    worse, _ = case(tmp_path / "b", case.worse, case.good, **same)
    assert worse.metrics["accepted"] == 0 and worse.values["done"] and worse.values["stop_reason"] == "converged"
    assert "0.980" in worse.remark and is_remark(worse.remark)
    wanted, _ = case(tmp_path / "c", case.worse, case.good, **same, stop_agreement=0.99)
    assert not wanted.values["done"] and wanted.values["stop_reason"] == ""


def test_the_first_segmentor_has_no_incumbent(case, tmp_path):
    result, kept = case(tmp_path / "a", case.worse, case.encoder, round_number=0, incumbent_round=-1)
    assert kept["model.safetensors"] == weights(case.worse) and result.values["best_round"] == 0
    assert result.values["initial_area_out"] == result.metrics["foreground_share"] and not result.values["done"]
    assert result.metrics["accepted"] == 1 and result.metrics["averaged"] == 0 and is_remark(result.remark)


def test_a_first_segmentor_that_drifts_from_the_proposals_ends_the_loop(case, tmp_path):
    first = {"round_number": 0, "incumbent_round": -1}
    share = case(tmp_path / "a", case.good, case.encoder, **first)[0].metrics["foreground_share"]
    for name, proposed in (("b", share / 1.6), ("c", min(1.0, 1.6 * share))):
        result, kept = case(tmp_path / name, case.good, case.encoder, **first, proposed_area=proposed)
        assert kept["model.safetensors"] == weights(case.good), "there is no other"
        assert result.values["done"] and result.values["stop_reason"] == "drift" and is_remark(result.remark)
        assert "do not trust it" in result.remark and f"{100 * proposed:.1f} %" in result.remark
    near, _ = case(tmp_path / "d", case.good, case.encoder, **first, proposed_area=share / 1.2)
    assert not near.values["done"] and near.values["initial_area_out"] == pytest.approx(share / 1.2)
    labelled, _ = case(tmp_path / "e", case.good, case.encoder, **first, proposed_area=share / 1.6, use_labels=1)
    assert not labelled.values["done"], "labels decide"


def test_a_loop_that_has_ended_passes_the_best_one_on(case, tmp_path):
    result, kept = case(tmp_path / "a", case.worse, case.good, skip=True, initial_area=0.25)
    assert kept["model.safetensors"] == weights(case.good)
    expected = {"best_round": 0, "done": True, "stop_reason": "", "initial_area_out": 0.25}
    assert result.values == expected and result.skipped and not result.metrics


def test_missing_labels_are_an_error(case, tmp_path):
    empty = write_truth(tmp_path / "empty", {})
    with pytest.raises(UserError, match="--use_labels 0"):
        case(tmp_path / "a", case.worse, case.good, use_labels=1, truth=empty)


def test_drift_is_a_foreground_that_grows_or_shrinks_out_of_proportion():
    first = Assessment(edge_score=1.0, foreground_share=0.2)
    for share, drifts in ((0.2, False), (0.25, False), (0.4, True), (0.1, True), (0.0, True)):
        new = Assessment(edge_score=2.0, foreground_share=share)
        assert area_drifts(share, first.foreground_share) == drifts and is_better(new, first) != drifts
    assert area_drifts(0.9, 0.8) and not area_drifts(0.8, 0.75), "the background halves"


def own_truth(model: Path, image, folder: Path) -> Path:
    """Labels of the image `a` that this segmentor fits perfectly: its own instances."""
    found = postprocess(predict_maps(image, load_model(model, Segmentor)), image, CONFIG.postprocessing)
    return write_truth(folder, {"a": found.labels.astype("uint16")})


def test_a_users_model_is_not_replaced_by_one_that_is_right_on_labelled_images_alone(case, tmp_path):
    """The labels prefer the candidate, which takes nearly all of an unlabelled negative for foreground."""
    part = IMAGE[:200, :200][..., None]
    images = write_images(tmp_path / "two", {"a": part, "b": part.max() - part})
    given = {"truth": own_truth(case.worse, part, tmp_path / "own"), "use_labels": 1, "candidate_weight": 1.0}
    guarded = {**given, "images": images, "incumbent_round": -1, "round_number": 0}
    result, kept = case(tmp_path / "a", case.worse, case.good, **guarded)
    assert kept["model.safetensors"] == weights(case.good) and result.metrics["accepted"] == 0
    assert result.metrics["dice"] > 0.99 and is_remark(result.remark)
    assert result.values["best_round"] == -1 and not result.values["done"]
    result, kept = case(tmp_path / "b", case.worse, case.good, **guarded, always_accept=True)
    assert kept["model.safetensors"] == weights(case.worse) and result.metrics["accepted"] == 0
    for name, other in {
        "c": guarded | {"incumbent_round": 0, "round_number": 1},
        "d": given | {"incumbent_round": -1},
    }.items():
        result, kept = case(tmp_path / name, case.worse, case.good, **other)
        assert kept["model.safetensors"] == weights(case.worse), "a round of this loop, or no unlabelled image"
        assert result.metrics["accepted"] == 1


def test_a_comparison_says_how_it_came_out(case):
    """Without labels, by numbers: whatever `run` says of them follows from these."""

    def outcome(edge_score: float, share: float, refinement: str = "none", **more) -> str:
        settings = CONFIG.postprocessing.model_copy(update={"border_refinement": refinement})
        name = f"outcome-{refinement}"
        if not (case.root / name).exists():
            case.segmentor(name, trained(), CONFIG.model_copy(update={"postprocessing": settings}))
        given = dict.fromkeys(("images", "truth", "incumbent", "best"), case.root)
        given |= {"round_number": 2, "incumbent_round": 1, "candidate": case.root / name} | more
        incumbent = Assessment(edge_score=2.0, foreground_share=0.2)
        return Comparison.of(SelectModel(**given), Assessment(edge_score, share), incumbent).outcome()

    assert outcome(2.03, 0.2) == "better"
    assert outcome(2.01, 0.2) == "gain too small"
    assert outcome(2.1, 0.2, "means") == "gain too small" and outcome(2.3, 0.2, "means") == "better"
    assert outcome(2.1, 0.2, "means", incumbent_round=-1) == "better"
    assert outcome(1.9, 0.2) == "not better"
    assert outcome(2.5, 0.31) == outcome(2.5, 0.25, initial_area=0.15) == "drift"


def test_a_foreground_may_change_on_unlabelled_images_as_on_labelled_ones():
    assert area_drifts_unlabelled(0.4, 0.2, 0.3, 0.3)
    assert area_drifts_unlabelled(0.1, 0.2, 0.3, 0.3)
    assert not area_drifts_unlabelled(0.4, 0.2, 0.3, 0.15), "half was missed on the labelled images as well"
    assert not area_drifts_unlabelled(0.2, 0.2, 0.3, 0.15), "no drift"
    assert not area_drifts_unlabelled(0.4, 0.0, 0.3, 0.0), "the incumbent finds nothing"


@pytest.mark.parametrize("high_threshold", [0.0, 0.95])
def test_with_labels_that_tell_cells_apart_f1_counts(case, tmp_path, high_threshold):
    """Instances are made with the model's own post-processing."""
    settings = CONFIG.postprocessing.model_copy(update={"high_threshold": high_threshold})
    config = CONFIG.model_copy(update={"postprocessing": settings})
    candidate = case.segmentor(f"high-{high_threshold}", trained(), config)
    result, _ = case(tmp_path / "a", candidate, case.encoder, use_labels=1)
    image = IMAGE[:200, :200][..., None]
    numbers = tally(LABELS[:200, :200], postprocess(predict_maps(image), image, settings).labels).metrics()
    assert result.metrics["f1"] == pytest.approx(numbers["f1"])
    if not high_threshold:  # no object is dropped from the labels that stays in the mask
        assert result.metrics["dice"] == pytest.approx(numbers["dice"], abs=0.01)
    free, _ = case(tmp_path / "b", candidate, case.encoder)
    assert "f1" not in free.metrics
