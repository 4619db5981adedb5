"""`gate`: of two real segmentors the better one goes on, by labels and without them."""

import copy
from pathlib import Path

import pytest
import torch
from real_labels import wheel_nuclei
from small_segmentor import CONFIG, trained, write_images, write_model, write_truth

from components.select_model.component import SelectModel
from components.select_model.criteria import Assessment, better, drifts, strays
from components.select_model.main import run
from shared.artifacts.kinds import Model
from shared.artifacts.manifest import hash_folder, seal
from shared.instances.postprocess import find
from shared.metrics.tally import tally
from shared.models.backbones.vit import Encoder, save_encoder
from shared.models.segmentor import Segmentor, SegmentorConfig, load_segmentor, save_segmentor
from shared.models.tiled_inference import predict_maps
from shared.system.errors import UserError

IMAGE, LABELS = wheel_nuclei()


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
            worse.head[2].bias[0] += 2.5
        self.worse = self.segmentor("worse", worse)
        save_encoder(root / "encoder", Encoder(CONFIG.encoder), CONFIG.encoder, "")
        seal(root / "encoder", Model)

    def segmentor(self, name: str, segmentor: Segmentor, config: SegmentorConfig = CONFIG) -> Path:
        save_segmentor(self.root / name, segmentor, config, "")
        seal(self.root / name, Model)
        return self.root / name

    def __call__(self, out: Path, candidate: Path, incumbent: Path, **more):
        out.mkdir()
        given = {"images": self.images, "truth": self.truth, "candidate": candidate, "incumbent": incumbent} | more
        given = {"number": 1, "incumbent_round": 0} | given
        result = run(SelectModel(**given, best=out, tile=128))
        return result, {name: file.sha256 for name, file in hash_folder(out).items()}


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    return Case(tmp_path_factory.mktemp("select_model"))


def weights(model: Path) -> str:
    return hash_folder(model)["model.safetensors"].sha256


@pytest.mark.parametrize("use_labels", [0, 1])
def test_the_better_one_goes_on_with_labels_and_without(case, tmp_path, use_labels):
    result, kept = case(tmp_path / "a", case.worse, case.good, use_labels=use_labels)
    assert kept["model.safetensors"] == weights(case.good) != weights(case.worse)
    assert result.values["best_round"] == 0 and result.metrics["accepted"] == 0
    result, kept = case(tmp_path / "b", case.good, case.worse, use_labels=use_labels, average=1)
    assert kept["model.safetensors"] == weights(case.good)
    assert result.values["best_round"] == 1 and result.metrics["accepted"] == 1
    assert ("dice" in result.metrics) == bool(use_labels)


def test_a_better_round_is_averaged_with_the_one_before(case, tmp_path):
    result, kept = case(tmp_path / "a", case.good, case.worse, average=0.6)
    assert result.values["best_round"] == 1 and "60% of the weights are this round" in result.page.html()
    assert result.metrics["averaged"] == 1
    found, config = load_segmentor(tmp_path / "a")
    assert config == CONFIG and kept["config.json"] == hash_folder(case.good)["config.json"].sha256
    good, worse = (load_segmentor(folder)[0] for folder in (case.good, case.worse))
    assert torch.equal(found.head[0].weight, good.head[0].weight)
    torch.testing.assert_close(found.head[2].bias, 0.6 * good.head[2].bias + 0.4 * worse.head[2].bias)
    assert not torch.allclose(good.head[2].bias, worse.head[2].bias)


def test_an_average_that_is_worse_than_what_was_best_before_is_not_handed_on(case, tmp_path):
    """The good one with its hidden channels in another order does the same, but lies in another basin."""
    permuted = copy.deepcopy(trained())
    full, head = permuted.full, permuted.head
    for first, last, taken in (
        (head[0], head[2], slice(None)),
        (full[0], full[2], slice(None)),
        (full[2], head[0], slice(len(full[2].bias), None)),
    ):
        order = torch.randperm(len(first.bias), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            first.weight.copy_(first.weight[order])
            first.bias.copy_(first.bias[order])
            last.weight[:, taken] = last.weight[:, taken][:, order]
    candidate = case.segmentor("permuted", permuted)
    result, kept = case(tmp_path / "a", candidate, case.good, use_labels=1)
    assert result.metrics["accepted"] == 1 and result.metrics["averaged"] == 0
    assert kept["model.safetensors"] == weights(candidate)
    assert "it goes on alone" in result.page.html() and "their average" in result.page.html()


def test_a_foreground_that_creeps_away_ends_the_loop(case, tmp_path):
    """No round is far from the one before, the last is far from the first."""
    result, kept = case(tmp_path / "a", case.good, case.worse, average=1)
    area, first = result.metrics["foreground_share"], result.values["first_area_out"]
    assert first > area and result.metrics["accepted"] == 1 and not result.values["done"]
    assert case(tmp_path / "b", case.good, case.worse, first_area=area)[0].values["first_area_out"] == area
    result, kept = case(tmp_path / "c", case.good, case.worse, first_area=min(1, 1.6 * area))
    assert result.metrics["accepted"] == 0 and result.values["done"] and result.values["ending"] == "drift"
    assert kept["model.safetensors"] == weights(case.worse) and "first segmentor" in result.page.html()


@pytest.mark.parametrize("more", [{"incumbent_round": -1}, {"average": 1.0}, {"incumbent": "other"}])
def test_what_is_no_round_of_this_loop_is_not_averaged(case, tmp_path, more):
    other = CONFIG.model_copy(update={"width": 8})
    torch.manual_seed(0)
    save_segmentor(case.root / "other", Segmentor(other), other, "")
    seal(case.root / "other", Model)
    given = {"incumbent": case.worse} | more
    given["incumbent"] = case.root / "other" if given["incumbent"] == "other" else given["incumbent"]
    result, kept = case(tmp_path / "a", case.good, use_labels=1, **given)
    assert result.values["best_round"] == 1 and kept["model.safetensors"] == weights(case.good)
    assert "of the weights" not in result.page.html() and result.metrics["averaged"] == 0


def test_a_worse_one_goes_on_only_where_that_is_asked_for(case, tmp_path):
    result, kept = case(tmp_path / "a", case.worse, case.good, use_labels=1, keep_worse=True)
    assert kept["model.safetensors"] == weights(case.worse)
    assert result.values["best_round"] == 1 and result.metrics["accepted"] == 0


@pytest.mark.parametrize(("number", "done"), [(1, False), (2, True), (3, True)])
def test_the_loop_ends_where_the_best_round_lies_two_back(case, tmp_path, number, done):
    result, _ = case(tmp_path / "a", case.worse, case.good, number=number)
    assert result.values["best_round"] == 0 and result.values["done"] == done
    assert result.values["ending"] == ("no better" if done else "")


@pytest.mark.parametrize(("sharpen", "accepted"), [("means", 0), ("edges", 1), ("none", 1)])
def test_where_first_masks_followed_the_edges_a_round_must_be_much_better(case, tmp_path, sharpen, accepted):
    """The candidate's edge score is 1.08 times the incumbent's."""
    config = CONFIG.model_copy(update={"sharpen": sharpen})
    weaker = copy.deepcopy(trained())
    with torch.no_grad():
        weaker.head[2].bias[0] += 1
    pair = case.segmentor(f"better-{sharpen}", trained(), config), case.segmentor(f"weaker-{sharpen}", weaker, config)
    result, _ = case(tmp_path / "a", *pair)
    assert result.metrics["accepted"] == accepted
    assert result.values["ending"] == ("" if accepted else "no better")
    assert ("less than the 10% asked for" in result.page.html()) == (not accepted)
    assert case(tmp_path / "b", *pair, incumbent_round=-1)[0].metrics["accepted"] == 1, "of the user"


def test_the_loop_converges_only_where_the_segmentor_is_no_better(case, tmp_path):
    better, _ = case(tmp_path / "a", case.good, case.worse, converged=True)
    assert better.metrics["accepted"] == 1 and not better.values["done"] and better.values["ending"] == ""
    worse, _ = case(tmp_path / "b", case.worse, case.good, converged=True)
    assert worse.metrics["accepted"] == 0 and worse.values["done"] and worse.values["ending"] == "converged"


def test_the_first_segmentor_has_nothing_to_be_compared_with(case, tmp_path):
    result, kept = case(tmp_path / "a", case.worse, case.root / "encoder", number=0, incumbent_round=-1)
    assert kept["model.safetensors"] == weights(case.worse) and result.values["best_round"] == 0
    assert result.values["first_area_out"] == result.metrics["foreground_share"] and not result.values["done"]


def test_a_loop_that_is_over_hands_on_what_was_best(case, tmp_path):
    result, kept = case(tmp_path / "a", case.worse, case.good, skip=True, first_area=0.25)
    assert kept["model.safetensors"] == weights(case.good)
    assert result.values == {"best_round": 0, "done": True, "ending": "", "first_area_out": 0.25} and result.skipped


def test_labels_that_are_not_there_are_missed(case, tmp_path):
    empty = write_truth(tmp_path / "empty", {})
    with pytest.raises(UserError, match="--use_labels 0"):
        case(tmp_path / "a", case.worse, case.good, use_labels=1, truth=empty)


def test_drift_is_a_foreground_that_grows_or_shrinks_out_of_proportion():
    first = Assessment(edge=1.0, area=0.2, dice=None)
    for area, drifted in ((0.2, False), (0.25, False), (0.4, True), (0.1, True), (0.0, True)):
        new = Assessment(edge=2.0, area=area, dice=None)
        assert drifts(new.area, first.area) == drifted and better(new, first) != drifted


def own_truth(model: Path, image, folder: Path) -> Path:
    """Labels of the image `a` that this segmentor fits perfectly: what it finds there."""
    segmentor, config = load_segmentor(model)
    maps = predict_maps(segmentor, config, image, tile=128, batch_size=4, device="cpu")
    return write_truth(
        folder, {"a": find(maps, image, sure=config.sure, sharpen=config.sharpen).cells(config.saddle).astype("uint16")}
    )


def test_a_users_model_is_not_replaced_by_one_that_is_right_on_the_drawn_images_alone(case, tmp_path, caplog):
    """On nuclei the two are close, and the labels say the candidate; on their negative it takes nearly all for cell."""
    part = IMAGE[:200, :200][..., None]
    images = write_images(tmp_path / "two", {"a": part, "b": part.max() - part})
    given = {"truth": own_truth(case.worse, part, tmp_path / "own"), "use_labels": 1, "average": 1.0}
    guarded = {**given, "images": images, "incumbent_round": -1, "number": 0}
    with caplog.at_level("INFO"):
        result, kept = case(tmp_path / "a", case.worse, case.good, **guarded)
    assert kept["model.safetensors"] == weights(case.good) and result.metrics["accepted"] == 0
    assert result.values["best_round"] == -1 and not result.values["done"]
    assert "By the labels it is better, but on images that nobody drew" in result.page.html()
    assert "so the comparison favours the newer segmentor" in result.page.html() and "favours" in caplog.text
    result, kept = case(tmp_path / "b", case.worse, case.good, **guarded, keep_worse=True)
    assert kept["model.safetensors"] == weights(case.worse) and result.metrics["accepted"] == 0
    for name, other in {
        "c": guarded | {"incumbent_round": 0, "number": 1},
        "d": given | {"incumbent_round": -1},
    }.items():
        result, kept = case(tmp_path / name, case.worse, case.good, **other)
        assert kept["model.safetensors"] == weights(case.worse), "a round of this loop, or nothing else to look at"
        assert "nobody drew" not in result.page.html()
    free, _ = case(tmp_path / "e", case.worse, case.good, images=images)
    assert "favours" not in free.page.html()


def test_a_foreground_strays_where_it_drifts_by_more_than_the_labels_call_for():
    def area(share: float) -> Assessment:
        return Assessment(edge=1.0, area=share)

    assert strays(area(0.4), area(0.2), area(0.3), area(0.3))
    assert strays(area(0.1), area(0.2), area(0.3), area(0.3))
    assert not strays(area(0.4), area(0.2), area(0.3), area(0.15)), "half was missed on the drawn images as well"
    assert not strays(area(0.2), area(0.2), area(0.3), area(0.15)), "no drift"
    assert not strays(area(0.4), area(0.0), area(0.3), area(0.0)), "the incumbent finds nothing"


def test_with_labels_that_tell_cells_apart_f1_counts(case, tmp_path):
    result, _ = case(tmp_path / "a", case.good, case.root / "encoder", use_labels=1)
    image = IMAGE[:200, :200][..., None]
    found = find(
        predict_maps(trained(), CONFIG, image, tile=128, batch_size=4, device="cpu"),
        image,
        sure=CONFIG.sure,
        sharpen="none",
    )
    numbers = tally(LABELS[:200, :200], found.cells(CONFIG.saddle)).metrics()
    assert result.metrics["f1"] == pytest.approx(numbers["f1"])
    assert result.metrics["dice"] == pytest.approx(numbers["dice"])
    free, _ = case(tmp_path / "b", case.good, case.root / "encoder")
    assert "f1" not in free.metrics
