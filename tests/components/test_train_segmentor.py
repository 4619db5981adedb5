"""train_segmentor: it learns, resumes bit for bit, passes a model through, and names errors."""

import itertools
import sys

import numpy as np
import pytest
import torch
from killed_training import assert_killed_training_resumes
from loop_artifacts import Data, dice, payload
from real_labels import real_pairs, wheel_nuclei
from skimage import measure
from small_segmentor import write_images, write_truth
from torch.optim.optimizer import register_optimizer_step_post_hook

from components.train_segmentor import plan
from components.train_segmentor.calibration import fit_to_refinement, tune
from components.train_segmentor.component import TrainSegmentor
from components.train_segmentor.labelled_crops import LabelledCrops
from components.train_segmentor.loop import train as loop
from components.train_segmentor.main import run
from components.train_segmentor.plan import REDUCTION, Plan
from shared.artifacts.image_set import ImageReader, ImageWriter
from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.artifacts.label_set import NOTE_BORDER_REFINEMENT, NOTE_HAND_LABELLED, LabelReader, LabelWriter
from shared.artifacts.manifest import seal
from shared.artifacts.postprocessing import PostProcessing
from shared.imaging.normalise import Normalisation
from shared.instances.distance import instance_distance
from shared.instances.postprocess import find_foreground, split_instances
from shared.metrics.tally import tally
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig, ModelInput
from shared.models.files import save_model
from shared.models.load import load_model
from shared.models.segmentor import Segmentor
from shared.models.tiled_inference import TiledPredictor
from shared.system.errors import UserError
from shared.targets import TARGETS
from shared.training.seeds import step_generator

TARGET = TARGETS["foreground_distance"]
pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = {"steps": 4, "batch_size": 2, "crop": 64}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The wheel's nuclei with their true foreground as pseudo-masks, and an untrained encoder."""
    image, mask = wheel_nuclei()
    data = Data(tmp_path_factory.mktemp("train"), [(image[:256, :256], mask[:256, :256]), (image[256:], mask[256:])])
    data.pseudo = data.labels("pseudo", {key: (mask > 0).astype(np.uint8) for key, mask in data.masks.items()})
    config = EncoderConfig.preset("nano", patch=8, channels=1, crop=64)
    torch.manual_seed(0)
    save_model(data.root / "encoder", Encoder(config).state_dict(), config, "# Untrained")
    seal(data.root / "encoder", Model)
    return data


def train(data: Data, folder, labels=None, model=None, **options):
    folder.mkdir(parents=True)
    stage = TrainSegmentor(
        images=data.images,
        labels=labels or data.pseudo,
        model=model or data.root / "encoder",
        segmentor=folder,
        **{**QUICK, **options},
    )
    result = run(stage)
    seal(folder, Model, skipped=result.skipped)
    return result


def score(data: Data, folder) -> float:
    segmentor = load_model(folder, Segmentor)
    maps = TiledPredictor.of(segmentor, "cpu")(ImageReader(data.images).read("image0"))
    target = TARGETS[segmentor.config.architecture.target]
    return dice(target.probability(maps, segmentor.config.postprocessing) >= 0.5, data.masks["image0"])


def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """Length and peak learning rate of every training from now on."""
    taken, plan_training = [], plan.plan_training

    def spy(*args, **kwargs) -> Plan:
        made = plan_training(*args, **kwargs)
        taken.append((made.steps, made.rate))
        return made

    monkeypatch.setattr("components.train_segmentor.main.plan_training", spy)
    return taken


def test_it_learns_and_is_trained_further(data, tmp_path, monkeypatch):
    taken = steps_taken(monkeypatch)
    result = train(data, tmp_path / "first", steps=40, batch_size=4, crop=96)
    assert result.metrics["loss"] < 0.8 * result.metrics["first_loss"]
    assert "<svg" in result.page.html() and "<img" in result.page.html()
    first = score(data, tmp_path / "first")
    assert first > 0.75
    later = train(data, tmp_path / "second", model=tmp_path / "first", steps=40, batch_size=4, crop=96)
    assert later.metrics["first_loss"] < 0.8 * result.metrics["first_loss"]
    assert taken == [(40, 3e-3), (20, 1.5e-3)]
    assert score(data, tmp_path / "second") > first - 0.02


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "foreground_distance"])
def test_it_learns_another_target_from_an_encoder_or_a_segmentor(data, tmp_path, target):
    """From a segmentor of the default target it keeps all but the last layer."""
    options = {"target": target, "steps": 120 if target == "distance" else 40, "batch_size": 4, "crop": 96}
    result = train(data, tmp_path / "new", **options)
    assert result.metrics["loss"] < 0.8 * result.metrics["first_loss"]
    assert load_model(tmp_path / "new", Segmentor).config.architecture.target == target
    assert score(data, tmp_path / "new") > 0.75
    train(data, tmp_path / "first", steps=2)
    first, other = (
        load_model(tmp_path / "first", Segmentor),
        load_model(tmp_path / "first", Segmentor).of_target(target),
    )
    new = {name for name, weights in other.state_dict().items() if not torch.equal(weights, first.state_dict()[name])}
    assert new == {"decoder.head.2.weight", "decoder.head.2.bias"}
    train(data, tmp_path / "changed", model=tmp_path / "first", **options)
    assert load_model(tmp_path / "changed", Segmentor).config.architecture.target == target


@pytest.fixture
def split_images(data, tmp_path):
    """The nuclei in four parts of the splits train, train, val and test; their label images."""
    image, labels = wheel_nuclei()
    parts = {"a": (0, "train"), "b": (128, "train"), "c": (256, "val"), "d": (384, "test")}
    with ImageWriter(tmp_path / "images") as images, LabelWriter(tmp_path / "truth", "truth") as truth:
        for key, (first, split) in parts.items():
            images.add(key, image[first : first + 128, :, None], source=f"{key}.tif", split=split)
            truth.add(key, labels[first : first + 128], "instances")
    seal(tmp_path / "images", ImageSet)
    seal(tmp_path / "truth", LabelSet)
    return tmp_path


def train_by_hand_labels(folder, name: str, keys: str, encoder, **options):
    """Train on the labels of some of the split images."""
    given = LabelReader(folder / "truth")
    with LabelWriter(folder / f"labels-{name}", "truth") as writer:
        for key in keys:
            writer.add(key, given.mask(key), "instances")
    seal(folder / f"labels-{name}", LabelSet)
    (folder / name).mkdir()
    places = {"images": folder / "images", "labels": folder / f"labels-{name}", "segmentor": folder / name}
    return run(TrainSegmentor(**places, model=encoder, **{**QUICK, **options}))


@pytest.mark.parametrize("target", TARGETS)
def test_labels_by_hand_are_learned_by_their_split(data, split_images, target):
    """From train it learns, by val it tunes, test it never sees."""
    options = {"target": target, "steps": 12}
    result = train_by_hand_labels(split_images, "all", "abcd", data.root / "encoder", **options)
    train_by_hand_labels(split_images, "most", "abc", data.root / "encoder", **options)
    assert payload(split_images / "all") == payload(split_images / "most")
    assert "on labelled images (1)" in result.page.html()
    train_by_hand_labels(split_images, "train", "ab", data.root / "encoder", **options)
    weights = [load_model(split_images / name, Segmentor).state_dict() for name in ("all", "train")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]), "val is for tuning alone"


@pytest.mark.parametrize(("refinement", "target"), [("edges", "flow"), ("means", "foreground_distance")])
def test_auto_learns_flows_where_borders_were_found_by_watershed(data, tmp_path, monkeypatch, refinement, target):
    """In half as many steps again; a segmentor that is trained further keeps its own target."""
    taken = steps_taken(monkeypatch)
    (tmp_path / "labels").mkdir()
    with LabelWriter(tmp_path / "labels", "pseudo", {NOTE_BORDER_REFINEMENT: refinement}) as writer:
        for key, mask in data.masks.items():
            writer.add(key, mask, "instances")
    seal(tmp_path / "labels", LabelSet)
    train(data, tmp_path / "new", labels=tmp_path / "labels")
    assert load_model(tmp_path / "new", Segmentor).config.architecture.target == target
    train(data, tmp_path / "flow", target="flow", steps=2)
    train(data, tmp_path / "further", labels=tmp_path / "labels", model=tmp_path / "flow", steps=4)
    assert load_model(tmp_path / "further", Segmentor).config.architecture.target == "flow"
    assert [steps for steps, _ in taken] == [6 if target == "flow" else 4, 3, 3]


def test_labels_of_other_splits_alone_are_refused(data, split_images):
    with pytest.raises(UserError, match="no labelled image of the split train"):
        train_by_hand_labels(split_images, "other", "cd", data.root / "encoder")


def test_what_is_saved_is_the_moving_average_of_the_weights(data, tmp_path):
    """Against one made here, of the weights as the optimiser leaves them after each step."""
    train(data, tmp_path / "start", steps=1)
    train(data, tmp_path / "saved", model=tmp_path / "start", steps=12)
    segmentor = load_model(tmp_path / "start", Segmentor)
    expected = {name: value.clone() for name, value in segmentor.state_dict().items()}
    number = itertools.count()

    def follow(*_: object) -> None:
        step = next(number)
        for name, new in segmentor.state_dict().items():
            expected[name].lerp_(new, 1 - min(0.98, (1 + step) / (10 + step)))

    given = {"images": data.images, "labels": data.pseudo, "model": tmp_path / "start", "segmentor": tmp_path}
    reader, labels = ImageReader(data.images), LabelReader(data.pseudo)
    crops = LabelledCrops(reader, labels, reader.keys(), size=64, model_input=ModelInput(channels=1), target=TARGET)
    watched = register_optimizer_step_post_hook(follow)
    loop(TrainSegmentor(**given, **{**QUICK, "steps": 12}), segmentor, crops, Plan(6, REDUCTION * 3e-3), "cpu")
    watched.remove()
    saved, last = load_model(tmp_path / "saved", Segmentor).state_dict(), segmentor.state_dict()
    assert next(number) == 6
    for name in saved:
        torch.testing.assert_close(saved[name], expected[name], atol=1e-6, rtol=0)
    assert max((saved[name] - last[name]).abs().max() for name in saved) > 1e-4, "not the last weights"


def test_the_high_threshold_is_calibrated_on_the_training_images(data, tmp_path):
    """Nine tenths of the peak of a typical object; a network that has hardly learned thereby keeps its objects."""
    for name, steps in (("hardly", 3), ("well", 60)):
        result = train(data, tmp_path / name, steps=steps, batch_size=4, crop=96)
        segmentor = load_model(tmp_path / name, Segmentor)
        predictor, settings = TiledPredictor.of(segmentor, "cpu"), segmentor.config.postprocessing
        typical = []
        for image in map(ImageReader(data.images).read, data.masks):
            part = image[:, 64:448]  # the middle
            probability = predictor(part)[0]
            pieces = measure.label(probability >= 0.5, connectivity=1)
            objects = measure.regionprops(pieces, probability)
            pixels = np.concatenate([np.full(int(one.area), one.intensity_max) for one in objects])
            typical.append(np.median(pixels))
        assert settings.high_threshold == result.metrics["high_threshold"]
        assert settings.high_threshold == pytest.approx(0.9 * np.median(typical), abs=2e-3)
        assert find_foreground(predictor(image), image, settings).mask.any()


def write_hand_labelled(data: Data, folder, kind: str):
    """The true masks, the first image's noted as hand-labelled."""
    with LabelWriter(folder, "pseudo", {NOTE_HAND_LABELLED: ["image0"]}) as writer:
        for key, mask in data.masks.items():
            writer.add(key, mask if kind == "instances" else (mask > 0).astype(np.uint8), kind)
    seal(folder, LabelSet)
    return folder


def test_hand_labelled_cells_calibrate_the_splitting(data, tmp_path):
    """No other value that was tried is better; later stages read it from the segmentor's config."""
    folder = tmp_path / "hand-labelled"
    folder.mkdir()
    labels = write_hand_labelled(data, folder, "instances")
    result = train(data, tmp_path / "a", labels=labels, steps=60)
    segmentor = load_model(tmp_path / "a", Segmentor)
    settings = segmentor.config.postprocessing
    image = ImageReader(data.images).read("image0")
    maps = TiledPredictor.of(segmentor, "cpu")(image)
    scores = {}
    for refinement, value in itertools.product(TARGET.GRID["border_refinement"], TARGET.GRID["merge_threshold"]):
        tried = settings.model_copy(update={"border_refinement": refinement, "merge_threshold": value})
        found = split_instances(find_foreground(maps.copy(), image, tried), tried)
        numbers = tally(data.masks["image0"], found).metrics()
        scores[refinement, value] = numbers["dice"] + numbers["f1"]
    best = scores[settings.border_refinement, settings.merge_threshold]
    assert best == max(scores.values()) > min(scores.values())
    assert result.metrics["merge_threshold"] == settings.merge_threshold


def test_predictions_are_refined_as_the_masks_were(data, tmp_path):
    folder = tmp_path / "refined"
    folder.mkdir()
    with LabelWriter(folder, "pseudo", {NOTE_BORDER_REFINEMENT: "edges"}) as writer:
        for key, mask in data.masks.items():
            writer.add(key, mask, "instances")
    seal(folder, LabelSet)
    train(data, tmp_path / "a", labels=folder)
    assert load_model(tmp_path / "a", Segmentor).config.postprocessing.border_refinement == "edges"
    train(data, tmp_path / "b")
    assert load_model(tmp_path / "b", Segmentor).config.postprocessing.border_refinement == "none"


def test_the_largest_losses_are_dropped_where_labels_are_noisy(data, tmp_path, monkeypatch):
    """In half as many steps; a segmentor that is trained further learns all pixels."""
    taken, made = steps_taken(monkeypatch), {}
    for fraction, steps in ((0.0, QUICK["steps"]), (0.3, 2 * QUICK["steps"]), (0.1, 2 * QUICK["steps"])):
        train(data, tmp_path / str(fraction), drop_fraction=fraction, steps=steps)
        made[fraction] = payload(tmp_path / str(fraction))["model.safetensors"]
    assert taken == [(QUICK["steps"], 3e-3)] * 3
    assert len(set(made.values())) == 3
    for fraction in (0.0, 0.3):
        train(data, tmp_path / f"further{fraction}", model=tmp_path / "0.3", drop_fraction=fraction)
    assert payload(tmp_path / "further0.0") == payload(tmp_path / "further0.3")


def test_more_steps_are_taken_where_images_are_of_several_kinds(data, tmp_path, monkeypatch):
    """As many for each kind, in every round, up to a limit."""
    image, mask = (plane[:256, :256] for plane in wheel_nuclei())
    two = Data(tmp_path, [(image, mask), (image.max() - image, mask)])
    two.pseudo = two.labels("pseudo", {key: (mask > 0).astype(np.uint8) for key, mask in two.masks.items()})

    taken = steps_taken(monkeypatch)
    train(two, tmp_path / "first", model=data.root / "encoder", steps=10)
    train(two, tmp_path / "later", model=tmp_path / "first", steps=10)
    monkeypatch.setattr(plan, "MAX_KINDS", 1.2)
    train(two, tmp_path / "at most", model=data.root / "encoder", steps=10)
    assert [steps for steps, _ in taken] == [20, 10, 12]


def test_a_foreground_mask_does_not_calibrate_the_splitting(data, tmp_path):
    folder = tmp_path / "hand-labelled"
    folder.mkdir()
    labels = LabelReader(write_hand_labelled(data, folder, "foreground"))
    train(data, tmp_path / "a")
    segmentor = load_model(tmp_path / "a", Segmentor)
    predictor, settings = TiledPredictor.of(segmentor, "cpu"), segmentor.config.postprocessing
    assert tune(predictor, TARGET, settings, ImageReader(data.images), labels, ["image0"]) == (settings, None)


@pytest.mark.parametrize(("own", "expected"), [(0.3, 0.3), (None, 0.65)])
def test_the_pixel_size_of_the_training_images_is_stored(data, tmp_path, own, expected):
    """The encoder's where the labelled images state none; and the side of the crops."""
    image, mask = (plane[:128, :128] for plane in wheel_nuclei())
    write_images(tmp_path / "images", {"a": image[..., None]}, {"a": own})
    labels = write_truth(tmp_path / "labels", {"a": mask})
    encoder = load_model(data.root / "encoder", Encoder)
    scaled = ModelInput(channels=1, um_per_px=0.65, crop_px=96)
    config = encoder.config.model_copy(update={"input": scaled})
    save_model(tmp_path / "encoder", encoder.state_dict(), config, "# Untrained")
    seal(tmp_path / "encoder", Model)
    given = {"images": tmp_path / "images", "labels": labels}
    for name, model in (("new", "encoder"), ("further", "new")):
        (tmp_path / name).mkdir()
        run(TrainSegmentor(**given, model=tmp_path / model, segmentor=tmp_path / name, **QUICK))
        seal(tmp_path / name, Model)
        stored = load_model(tmp_path / name, Segmentor).config.input
        assert (stored.um_per_px, stored.crop_px) == (expected, QUICK["crop"])


def test_prefetching_changes_no_result(data, tmp_path, monkeypatch):
    train(data, tmp_path / "prefetched", encoder_rate=0.5)
    monkeypatch.setattr(
        "components.train_segmentor.loop.prefetch", lambda make, first, stop: map(make, range(first, stop))
    )
    train(data, tmp_path / "plain", encoder_rate=0.5)
    assert payload(tmp_path / "prefetched") == payload(tmp_path / "plain")


def test_the_same_run_twice_gives_the_same_bytes(data, tmp_path):
    train(data, tmp_path / "a")
    train(data, tmp_path / "b")
    train(data, tmp_path / "c", seed=1)
    assert payload(tmp_path / "a") == payload(tmp_path / "b")
    assert payload(tmp_path / "a")["model.safetensors"] != payload(tmp_path / "c")["model.safetensors"]


def test_skip_passes_the_model_through(data, tmp_path):
    train(data, tmp_path / "first", steps=1)
    result = train(data, tmp_path / "second", labels=data.none, model=tmp_path / "first", skip=True)
    assert result.skipped and not result.values
    assert payload(tmp_path / "second") == payload(tmp_path / "first")
    with pytest.raises(UserError, match="segmentor"):
        train(data, tmp_path / "third", skip=True)


def test_no_foreground_names_the_remedy(data, tmp_path):
    blank = data.labels("blank", {key: np.zeros_like(mask, np.uint8) for key, mask in data.masks.items()})
    for number, labels in enumerate((blank, data.none)):
        with pytest.raises(UserError, match="use_labels"):
            train(data, tmp_path / str(number), labels=labels)


def command(data: Data, out) -> list[str]:
    arguments = {"images": data.images, "labels": data.pseudo, "model": data.root / "encoder", "segmentor": out}
    arguments |= {"steps": 12, "batch_size": 2, "crop": 64}
    words = [str(word) for name, value in arguments.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "components", "train_segmentor", *words]


def test_killed_and_started_again_it_ends_in_the_same_weights(data, tmp_path):
    assert_killed_training_resumes(lambda out: command(data, out), tmp_path)


def test_masks_are_cut_and_oriented_with_their_images(tmp_path):
    _, mask = wheel_nuclei()
    shown = (mask > 0).astype(np.uint16) * 1000
    data = Data(tmp_path, [(shown, mask)])
    labels = data.labels(
        "pseudo", {"image0": (mask > 0).astype(np.uint8)}, conf={"image0": np.full_like(mask, 51, np.uint8)}
    )
    crops = LabelledCrops(
        ImageReader(data.images),
        LabelReader(labels),
        ["image0"],
        size=64,
        model_input=ModelInput(channels=1, normalisation=Normalisation(low=0, high=100)),
        target=TARGET,
    )
    images, wanted = crops.batch(16, step_generator(0, 0))
    assert images.shape == (16, 64, 64, 1) and wanted.shape == (16, 3, 64, 64) and wanted.dtype == np.float32
    targets, weights, distances = wanted.transpose(1, 0, 2, 3)
    assert (distances[targets == 0] == 0).all() and distances.max() == 1
    assert 0.3 < distances[targets > 0].mean() < 0.6
    assert ((images[..., 0] > 0.45) == (targets > 0)).mean() > 0.97
    np.testing.assert_allclose(weights, 0.2, rtol=1e-6)
    assert targets.mean() > 1.1 * (mask > 0).mean()  # drawn towards the foreground
    np.testing.assert_array_equal(images, crops.batch(16, step_generator(0, 0))[0])


def test_cells_in_phase_contrast_are_cut_less_where_borders_were_found_by_watershed():
    """The defaults give 1,977 objects for 1,571 cells, the others 1,704."""
    plain = PostProcessing()
    assert fit_to_refinement(plain, "means") == plain.model_copy(
        update={"border_refinement": "means", "pale_centres": "fill"}
    )
    settings = fit_to_refinement(plain, "edges")
    image, truth = real_pairs("usiigaci/labelled", 1)[0]
    maps = np.stack([truth > 0, 0.4 + 0.6 * instance_distance(truth)]).astype(np.float32)
    found = [
        int(TARGET.decode(maps.copy(), image[..., None], one).labels.max())
        for one in (plain.model_copy(update={"border_refinement": "edges"}), settings)
    ]
    cells = len(np.unique(truth)) - 1
    assert cells <= found[1] < found[0]
