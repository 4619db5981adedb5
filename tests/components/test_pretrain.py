"""Pretraining: from timm's weights and others, on real images, killed and started again."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from loop_artifacts import payload
from pretraining import TINY, pretrain, transformers_mae, write_images
from real_labels import ROOT, real_pairs, wheel_nuclei
from safetensors.torch import save_file
from small_segmentor import write_model
from timm.models._manipulate import adapt_input_conv
from timm.models.vision_transformer import VisionTransformer

from components.pretrain.component import Pretrain
from components.pretrain.foreign_weights import adapt_checkpoint
from components.pretrain.model_input import MIN_CROP_PX, choose_downsample, crop_side
from components.pretrain.patch_embedding import fit_channels
from shared import store
from shared.artifacts.image_set import ImageReader, ImageWriter
from shared.artifacts.kinds import ImageSet, Model
from shared.artifacts.manifest import seal, verify
from shared.models.backbones.checkpoint_file import read_tensors
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig, ModelInput
from shared.models.files import load_config
from shared.models.load import load_model
from shared.system.errors import ArtifactError, UserError


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLOOM_THREADS", "1")


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageSet of the wheel's nuclei, in four pieces of 256 px."""
    image, _ = wheel_nuclei()
    pieces = [image[y : y + 256, x : x + 256] for y in (0, 256) for x in (0, 256)]
    return write_images(tmp_path_factory.mktemp("nuclei") / "images", pieces)


# --- what it starts from ------------------------------------------------------------------------------------------


def foreign(**extra) -> tuple[VisionTransformer, EncoderConfig]:
    torch.manual_seed(0)
    shape = {"img_size": 64, "patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4, "num_classes": 10}
    return VisionTransformer(**{**shape, **extra}).eval(), EncoderConfig.preset("nano", patch=8, channels=3, crop=64)


@pytest.mark.parametrize("wrap", ["plain", "dino", "mae", "safetensors"])
def test_foreign_weights_compute_what_they_did(tmp_path: Path, wrap: str) -> None:
    theirs, config = foreign()
    state, path = theirs.state_dict(), tmp_path / "vit.pth"
    if wrap == "plain":
        torch.save(state, path)
    elif wrap == "dino":
        state = {f"module.backbone.{k}": v for k, v in state.items() if not k.startswith("head")}
        state["module.head.mlp.0.weight"] = torch.zeros(3, 3)
        torch.save({"epoch": 3, "teacher": state}, path)
    elif wrap == "mae":
        torch.save({"model": {**state, "mask_token": torch.zeros(1, 1, 8), "decoder_pred.bias": torch.ones(3)}}, path)
    else:
        path = tmp_path / "vit.safetensors"
        save_file(state, path)
    ours = adapt_checkpoint(read_tensors(path), config, path)
    assert ours.architecture.position_grid == 8
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval().tokens(x), theirs.forward_features(x), atol=1e-5, rtol=1e-5)


def test_the_fixed_positions_of_mae_are_recognised(tmp_path: Path) -> None:
    """transformers' MAE knows the table, ours should not store it."""
    theirs, _ = transformers_mae(8, 3, 64)
    vit, config = foreign()
    with torch.no_grad():
        vit.pos_embed.copy_(theirs.vit.embeddings.position_embeddings)
        ours = adapt_checkpoint(vit.state_dict(), config, tmp_path)
        assert ours.architecture.position_grid is None
        x = torch.randn(2, 3, 64, 64)
        torch.testing.assert_close(ours.eval().tokens(x), vit.forward_features(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 16])
def test_channels_are_fitted_as_timm_does(channels: int) -> None:
    kernel = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(fit_channels(kernel, channels), adapt_input_conv(channels, kernel))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"depth": 7}, r"blocks\.6\.\S+ is unknown.*and 6 more"),
        ({"depth": 5}, r"blocks\.5\.\S+ is missing"),
        ({"embed_dim": 64}, r"cls_token is \(1, 1, 64\)"),
        ({"pre_norm": True}, "patch_embed.proj.bias is missing; norm_pre.weight is unknown"),
        ({"class_token": False, "global_pool": "avg"}, "cls_token is missing"),
    ],
)
def test_weights_that_do_not_fit_are_listed(tmp_path: Path, extra: dict, message: str) -> None:
    theirs, config = foreign(**extra)
    with pytest.raises(UserError, match=f"--size nano --patch 8.*{message}"):
        adapt_checkpoint(theirs.state_dict(), config, tmp_path / "vit.pth")


class Harmful:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("executed"),))


def test_files_that_are_no_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"w": torch.zeros(1)}, "args": Harmful()}, "objects.pth")
    Path("raw.pth").write_bytes(pickle.dumps(Harmful()))
    for name in ("objects.pth", "raw.pth"):
        with pytest.raises(UserError, match="only tensors are read"):
            read_tensors(Path(name))
    assert not Path("executed").exists()
    for name, data in {"text.pth": b"hello", "text.safetensors": b"hello", "empty.pth": b""}.items():
        Path(name).write_bytes(data)
        with pytest.raises(UserError, match=name):
            read_tensors(Path(name))
    torch.save({"epoch": 3}, "none.pth")
    with pytest.raises(UserError, match="contains no tensors"):
        read_tensors(Path("none.pth"))
    with pytest.raises(UserError, match="no such file"):
        read_tensors(Path("absent.pth"))


def test_from_an_encoder_artifact_and_from_a_file(tmp_path: Path, nuclei: Path) -> None:
    """With a learning rate of nearly nothing, what comes out is what was started from."""
    pretrain(nuclei, tmp_path / "first", learning_rate=1e-3)
    still = {"objective": "mae", "learning_rate": 1e-12, "steps": 1}
    pretrain(nuclei, tmp_path / "second", weights_from=str(tmp_path / "first"), seed=5, **still)
    save_file(load_model(tmp_path / "first", Encoder).state_dict(), tmp_path / "vit.safetensors")
    pretrain(
        nuclei, tmp_path / "third", weights=str(tmp_path / "vit.safetensors"), weights_input="unit", seed=6, **still
    )
    first, second, third = (load_model(tmp_path / name, Encoder).state_dict() for name in ("first", "second", "third"))
    for name in first:
        torch.testing.assert_close(second[name], first[name], atol=1e-6, rtol=0)
        torch.testing.assert_close(third[name], first[name], atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="patch 8; give --patch 8"):
        pretrain(nuclei, tmp_path / "no", weights_from=str(tmp_path / "first"), patch=16)
    with pytest.raises(UserError, match="exclude each other"):
        pretrain(nuclei, tmp_path / "no2", weights_from="a", weights="b")
    with pytest.raises(ArtifactError, match=r"--weights_from: .*type is ImageSet"):
        pretrain(nuclei, tmp_path / "no3", weights_from=str(nuclei))


def test_starting_points_in_a_store(tmp_path: Path, nuclei: Path, s3: str) -> None:
    pretrain(nuclei, tmp_path / "first")
    first = load_model(tmp_path / "first", Encoder).state_dict()
    save_file(first, tmp_path / "vit.safetensors")
    store.send(tmp_path / "first", f"{s3}/first")
    store.put(f"{s3}/vit.safetensors", (tmp_path / "vit.safetensors").read_bytes())
    for field, uri in {"weights_from": f"{s3}/first", "weights": f"{s3}/vit.safetensors"}.items():
        still = {"weights_input": "unit", "learning_rate": 1e-12, "steps": 1}
        pretrain(nuclei, tmp_path / field, **{field: uri}, **still)
        torch.testing.assert_close(load_model(tmp_path / field, Encoder).state_dict(), first, atol=1e-6, rtol=0)
    with pytest.raises(UserError, match=r"absent\.pth"):
        pretrain(nuclei, tmp_path / "no", weights=f"{s3}/absent.pth")


# --- the stage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{"objective": "mae"}, {"objective": "mae", "augment": True}, {"objective": "dino"}])
def test_same_seed_same_bytes(tmp_path: Path, nuclei: Path, more: dict) -> None:
    for name, seed in {"a": 0, "b": 0, "c": 1}.items():
        pretrain(nuclei, tmp_path / name, seed=seed, **more)
    digests = [verify(tmp_path / name, Model).digest for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    assert (tmp_path / "a/MODEL_CARD.md").read_text() == (tmp_path / "b/MODEL_CARD.md").read_text()


def test_the_threads_asked_for_are_those_of_the_first_sum_too(tmp_path: Path, nuclei: Path) -> None:
    before = torch.get_num_threads()
    for threads in (1, 4):
        torch.set_num_threads(threads)  # what torch begins with: a machine's cores
        pretrain(nuclei, tmp_path / str(threads), objective="none", crop=128)
        assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
    assert verify(tmp_path / "1", Model).digest == verify(tmp_path / "4", Model).digest


def test_small_deep_and_many_channelled_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    five = rng.integers(0, 60_000, (20, 24, 5)).astype(np.uint16)  # smaller than a crop
    images = write_images(tmp_path / "images", [five, rng.random((50, 90, 1)).astype(np.float32)])
    pretrain(images, tmp_path / "encoder")
    assert load_config(tmp_path / "encoder", EncoderConfig).input.channels == 5


@pytest.mark.parametrize(
    ("folder", "downsample"), [("usiigaci/labelled", 2), ("dsb2018/fluo", 1), ("dsb2018/histo_light", 1)]
)
def test_large_cells_are_seen_at_half_the_size(tmp_path: Path, folder: str, downsample: int) -> None:
    images = write_images(tmp_path / "images", [image for image, _ in real_pairs(folder, 6)])
    reader = ImageReader(images)
    given = Pretrain(images=images, encoder=tmp_path)
    assert choose_downsample(given, reader, reader.keys()) == downsample
    assert choose_downsample(given.model_copy(update={"downsample": "4"}), reader, reader.keys()) == 4


@pytest.mark.parametrize(("objective", "patch"), [("mae", 4), ("mae", 8), ("dino", 8)])
def test_crops_are_no_larger_than_images_of_single_cells(tmp_path: Path, objective: str, patch: int) -> None:
    """Cells that fill images of 50 px are learned from at full size, in crops of 48 px; larger images as asked."""
    image = wheel_nuclei()[0]
    cells = [image[y : y + 50, x : x + 50] for y in (0, 100) for x in (0, 100)]
    images = write_images(tmp_path / "images", cells)
    pretrain(images, tmp_path / "encoder", objective=objective, patch=patch, crop=128)
    found = load_config(tmp_path / "encoder", EncoderConfig)
    assert (found.input.crop_px, found.input.downsample, found.architecture.patch) == (48, 1, patch)
    reader = ImageReader(write_images(tmp_path / "mixed", [image[:20, :90], image[:300, :300], image[:200, :140]]))
    assert crop_side(128, reader, reader.keys()) == 128
    assert crop_side(256, reader, reader.keys()) == 128
    assert crop_side(128, reader, reader.keys()[:1]) == MIN_CROP_PX


def test_the_pixel_size_of_the_training_images_is_stored(tmp_path: Path) -> None:
    """The median of those that state one, of the split train alone."""
    image = wheel_nuclei()[0][:64, :64, None]
    with ImageWriter(tmp_path / "images") as writer:
        for i, scale in enumerate((0.2, 0.3, 0.7, None, 5.0)):
            writer.add(f"i{i}", image, source=f"{i}.tif", um_per_px=scale, split="test" if scale == 5.0 else "train")
    seal(tmp_path / "images", ImageSet)
    pretrain(tmp_path / "images", tmp_path / "encoder", objective="none")
    assert load_config(tmp_path / "encoder", EncoderConfig).input == ModelInput(channels=1, um_per_px=0.3, crop_px=32)
    unknown = write_images(tmp_path / "unknown", [image])
    pretrain(unknown, tmp_path / "again", objective="none", weights_from=str(tmp_path / "encoder"))
    assert load_config(tmp_path / "again", EncoderConfig).input.um_per_px is None, "of the images trained on"


def test_a_segmentor_to_start_from_is_passed_on(tmp_path: Path, nuclei: Path) -> None:
    write_model(tmp_path / "segmentor")
    result = pretrain(nuclei, tmp_path / "encoder", weights_from=str(tmp_path / "segmentor"))
    assert result.skipped
    assert payload(tmp_path / "encoder") == payload(tmp_path / "segmentor")


def test_constant_images_stop_the_run(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", [np.full((64, 64), 7, np.uint8)])
    with pytest.raises(UserError, match=r"collapsed.*are not constant"):
        pretrain(images, tmp_path / "encoder", steps=60, batch_size=2)


def test_divergence_is_reported(tmp_path: Path, nuclei: Path) -> None:
    with pytest.raises(UserError, match=r"the loss is (nan|inf).*--learning_rate"):
        pretrain(nuclei, tmp_path / "encoder", learning_rate=1e30, steps=20)


def test_no_training_images(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", [np.zeros((64, 64), np.uint8)], split="test")
    with pytest.raises(UserError, match="none of its 1 images is in the split train"):
        pretrain(images, tmp_path / "encoder")


# --- killed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["mae", "dino"])
def test_killed_and_started_again_gives_the_unbroken_runs_digest(tmp_path: Path, nuclei: Path, objective: str) -> None:
    def command(name: str) -> list[str]:
        words = {"images": nuclei, "encoder": tmp_path / name / "encoder", "objective": objective, "seed": 3, **TINY}
        words["steps"] = 30
        pairs = (word for item in words.items() for word in (f"--{item[0]}", str(item[1])))
        return [sys.executable, "-m", "components", "pretrain", *pairs]

    environment = {**os.environ, "CYTOLOOM_THREADS": "1", "CYTOLOOM_CHECKPOINT_SECONDS": "0"}
    subprocess.run(command("unbroken"), cwd=ROOT, env={**environment, "CYTOLOOM_CHECKPOINT_SECONDS": "999"}, check=True)
    victim = subprocess.Popen(command("killed"), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not list((tmp_path / "killed").glob(".checkpoints/*/checkpoint.pt")) and time.monotonic() < until:
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed/encoder").exists()
    again = subprocess.run(command("killed"), cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, check=True)
    assert "resuming from the checkpoint at step" in again.stderr
    digests = [
        json.loads((tmp_path / n / "encoder/artifact.json").read_text())["digest"] for n in ("unbroken", "killed")
    ]
    assert digests[0] == digests[1]
    assert [p.name for p in (tmp_path / "killed").iterdir()] == ["encoder"]  # nothing is left lying about
