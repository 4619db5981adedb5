"""Pretraining: against transformers' MAE and timm's weights, on real images, killed and started again."""

import copy
import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loop_artifacts import payload
from real_labels import ROOT, real_pairs, wheel_nuclei
from safetensors.torch import save_file
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from small_segmentor import write_model
from timm.models._manipulate import adapt_input_conv
from timm.models.vision_transformer import VisionTransformer

from components.pretrain.checkpoint_file import read_tensors
from components.pretrain.component import Pretrain
from components.pretrain.dino import PROTOTYPES, Head
from components.pretrain.dino_loss import STUDENT_TEMPERATURE, dino_loss, sinkhorn_targets
from components.pretrain.dino_objective import DinoObjective, view
from components.pretrain.foreign_weights import adapt_checkpoint
from components.pretrain.initial_encoder import fit_embedding, sample_crops
from components.pretrain.mae import Mae, normalise_patches
from components.pretrain.mae_objective import input_and_target
from components.pretrain.main import run
from components.pretrain.model_input import choose_downsample
from components.pretrain.patch_embedding import fit_channels
from components.pretrain.patches import images_of, patches_of
from components.pretrain.texture import DESCRIPTORS, LOG_OFFSET, ORIENTATIONS, TEXTURE_SHARE, descriptors
from shared import store
from shared.artifacts.image_set import ImageReader, ImageWriter
from shared.artifacts.kinds import ImageSet, Model
from shared.artifacts.manifest import seal, verify
from shared.data.crops import Crops
from shared.imaging.normalise import Normalisation
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig, ModelInput
from shared.models.files import load_config
from shared.models.load import load_model
from shared.stage.declaration import Result
from shared.system.errors import ArtifactError, UserError

TINY = {"size": "nano", "crop": 32, "batch_size": 4, "steps": 3}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLOOM_THREADS", "1")


def write_images(folder: Path, images: list[np.ndarray], split: str = "train") -> Path:
    with ImageWriter(folder) as writer:
        for i, image in enumerate(images):
            writer.add(f"image{i}", image if image.ndim == 3 else image[..., None], source=f"{i}.tif", split=split)
    seal(folder, ImageSet)
    return folder


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageSet of the wheel's nuclei, in four pieces of 256 px."""
    image, _ = wheel_nuclei()
    pieces = [image[y : y + 256, x : x + 256] for y in (0, 256) for x in (0, 256)]
    return write_images(tmp_path_factory.mktemp("nuclei") / "images", pieces)


def pretrain(images: Path, out: Path, **parameters) -> Result:
    out.mkdir(parents=True)
    result = run(Pretrain(images=images, encoder=out, **{**TINY, **parameters}))
    seal(out, Model)
    return result


# --- the objectives -----------------------------------------------------------------------------------------------


def transformers_mae(patch: int, channels: int, side: int):
    """transformers' MAE of a small shape, and ours with the same weights."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        image_size=side,
        patch_size=patch,
        num_channels=channels,
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=512,
        decoder_hidden_size=64,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=256,
        norm_pix_loss=True,
        layer_norm_eps=1e-6,
    )
    theirs = ViTMAEForPreTraining(config).eval()
    embeddings, count = theirs.vit.embeddings, (side // patch) ** 2
    embeddings.patch_embeddings.projection._is_hf_initialized = False
    embeddings.initialize_weights()  # the tables of positions, which its constructor leaves at zero
    theirs.decoder.initialize_weights(count)
    ours = Mae(Encoder(EncoderConfig.preset("nano", patch=patch, channels=channels, crop=side))).eval()
    ours.load_state_dict(renamed(theirs.state_dict()))
    return theirs, ours


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' parameter names -> ours."""
    out = {}
    for name, tensor in state.items():
        for old, new in (
            ("vit.embeddings.cls_token", "encoder.cls_token"),
            ("vit.embeddings.patch_embeddings.projection", "encoder.patch_embed.proj"),
            ("vit.layers", "encoder.blocks"),
            ("vit.layernorm", "encoder.norm"),
            ("decoder.decoder_layers", "decoder_blocks"),
            ("decoder.", ""),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
            ("attention.o_proj", "attn.proj"),
        ):
            name = name.replace(old, new)
        out[name] = tensor
    for name in [name for name in out if "attention.q_proj" in name]:
        parts = [out.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        out[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    return {name: tensor for name, tensor in out.items() if "pos_embed" not in name and "position" not in name}


@pytest.mark.parametrize(("patch", "channels", "side"), [(8, 1, 64), (16, 3, 64), (8, 4, 32)])
def test_mae_is_that_of_transformers(patch: int, channels: int, side: int) -> None:
    torch.manual_seed(1)
    theirs, ours = transformers_mae(patch, channels, side)
    x, noise = torch.rand(3, channels, side, side), torch.rand(3, (side // patch) ** 2)
    expected = theirs(x, noise=noise)
    loss, prediction, mask = ours(x, noise)
    assert torch.equal(mask, expected.mask.float())
    assert mask.sum(dim=1).tolist() == [0.75 * noise.shape[1]] * 3
    torch.testing.assert_close(prediction, expected.logits, atol=1e-5, rtol=1e-5)
    assert loss.item() == pytest.approx(expected.loss.item(), abs=1e-5)
    loss.backward()
    expected.loss.backward()
    gradient = theirs.vit.embeddings.patch_embeddings.projection.weight.grad
    torch.testing.assert_close(ours.encoder.patch_embed.proj.weight.grad, gradient, atol=1e-6, rtol=1e-4)


def test_an_augmented_crop_is_predicted_clean() -> None:
    """What is seen is a blurred or noisy picture of what is predicted; both are the crop, turned."""
    image, _ = wheel_nuclei()
    crop = Normalisation()(image[:96, :96, None])
    turned, kept, alike = 0, 0, []
    for number in range(40):
        seen, wanted = input_and_target(crop, np.random.default_rng(number))
        assert seen.shape == wanted.shape == crop.shape and seen.dtype == wanted.dtype == np.float32
        kept += np.array_equal(seen, wanted)
        alike.append(np.corrcoef(seen.ravel(), wanted.ravel())[0, 1])
        upright = spearmanr(wanted.ravel(), crop.ravel()).statistic
        turned += upright < 0.9
    assert 3 < kept < 20 and 10 < turned < 30 and min(alike) > 0.8

    torch.manual_seed(0)
    mae = Mae(Encoder(EncoderConfig.preset("nano", patch=8, channels=1, crop=32))).eval()
    seen, wanted, noise = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32), torch.rand(2, 16)
    loss, prediction, mask = mae(seen, noise, wanted)
    error = (prediction - normalise_patches(patches_of(wanted, 8))).square().mean(dim=2)
    torch.testing.assert_close(loss, (error * mask).sum() / mask.sum())
    torch.testing.assert_close(prediction, mae(seen, noise)[1])


@pytest.mark.parametrize("patch", [8, 16])
def test_descriptors_are_those_that_numpy_computes(patch: int) -> None:
    image = Normalisation()(wheel_nuclei()[0][:96, :96, None])
    x = np.concatenate([image, 0.5 * image[::-1]], axis=2)
    found = descriptors(patches_of(torch.from_numpy(x).permute(2, 0, 1)[None], patch), patch)[0].numpy()
    columns, half = 96 // patch, patch // 2
    for place in (0, 5, columns + 1, columns**2 - 1):
        row, column = (patch * part for part in divmod(place, columns))
        expected = []
        for channel in range(2):
            square = x[row : row + patch, column : column + patch, channel].astype(np.float64)
            down, right = square[1:, :-1] - square[:-1, :-1], square[:-1, 1:] - square[:-1, :-1]
            bin = np.pi / ORIENTATIONS
            angle, length = (np.arctan2(down, right) + bin / 2) % np.pi, np.hypot(down, right)
            gradients = np.histogram(angle, bins=ORIENTATIONS, range=(0, np.pi), weights=length)[0] / length.size
            parts = [square[i : i + half, j : j + half] for i in (0, half) for j in (0, half)]
            contrast = [part.std(ddof=1) for part in parts]
            expected += [*np.log(np.r_[gradients, contrast] + LOG_OFFSET), square.mean()]
        np.testing.assert_allclose(found[place], expected, atol=2e-3)


def test_textures_and_pixels_make_up_the_loss() -> None:
    torch.manual_seed(0)
    mae = Mae(Encoder(EncoderConfig.preset("nano", patch=8, channels=2, crop=32)), texture=True).eval()
    x, noise = torch.rand(4, 2, 32, 32), torch.rand(4, 16)
    mae.texture.fit(patches_of(x, 8))
    seen = mae.texture(patches_of(x, 8)).flatten(0, 1)
    torch.testing.assert_close(seen.mean(dim=0), torch.zeros(DESCRIPTORS * 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.std(dim=0), torch.ones(DESCRIPTORS * 2), atol=1e-4, rtol=0)
    for layer in (mae.decoder_texture, mae.decoder_pred):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    assert mae(x, noise)[0].item() == pytest.approx(1, abs=0.02)  # what predicting nothing gives
    mae.decoder_texture.bias.data.fill_(1.0)  # wrong by 1 of each descriptor, of mean 0: 1 more of a square
    assert mae(x, noise)[0].item() == pytest.approx(1 + TEXTURE_SHARE, abs=0.02)


def test_with_texture_an_encoder_sees_contrast(tmp_path: Path) -> None:
    """How well a linear model tells the contrast of unseen images' patches from the features."""
    pictures = [image[::2, ::2] for image, _ in real_pairs("usiigaci/labelled", 4)]
    images = write_images(tmp_path / "images", pictures[:3])
    told = {}
    for predict in ("pixels", "texture"):
        pretrain(images, tmp_path / predict, predict=predict, downsample="1", crop=64, batch_size=16, steps=200)
        encoder = load_model(tmp_path / predict, Encoder)
        tokens, contrast = [], []
        for picture in pictures:
            x = torch.from_numpy(encoder.config.input.normalisation(picture[:512, :512, None])).permute(2, 0, 1)
            tiles = x.unfold(1, 64, 64).unfold(2, 64, 64).flatten(1, 2).transpose(0, 1)
            with torch.no_grad():
                tokens.append(encoder(tiles).permute(0, 2, 3, 1).flatten(0, 2).numpy())
            contrast.append((patches_of(tiles, 8).std(dim=2) + LOG_OFFSET).log().flatten().numpy())
        model = Ridge().fit(np.concatenate(tokens[:3]), np.concatenate(contrast[:3]))
        told[predict] = model.score(tokens[3], contrast[3])
    assert told["texture"] > max(0.5, told["pixels"] + 0.1), told


def test_a_new_embedding_is_fitted_to_the_images() -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig.preset("nano", patch=8, channels=1, crop=64))
    image = Normalisation()(wheel_nuclei()[0][:128, :128, None])
    x = 0.3 + 0.2 * torch.from_numpy(image).permute(2, 0, 1)[None]
    weight = encoder.patch_embed.proj.weight.clone()
    fit_embedding(encoder, x)
    contents = encoder.patch_embed(x)
    torch.testing.assert_close(contents.mean(dim=(0, 2, 3)), torch.zeros(128), atol=1e-4, rtol=0)
    assert contents.square().mean().item() == pytest.approx(encoder.positions(8, 8).square().mean().item(), rel=1e-3)
    gain = encoder.patch_embed.proj.weight / weight
    torch.testing.assert_close(gain, gain.mean().expand_as(gain))
    fit_embedding(encoder, torch.full((1, 1, 64, 64), 0.5))  # nothing to fit to
    assert encoder.patch_embed(x).isfinite().all()


def test_patches_and_back() -> None:
    x = torch.randn(2, 3, 32, 48)
    assert patches_of(x, 8).shape == (2, 24, 192)
    assert torch.equal(images_of(patches_of(x, 8), 8, 32, 48), x)


def test_dino_loss_is_torchs_cross_entropy_across_views() -> None:
    torch.manual_seed(0)
    teacher, student = torch.softmax(torch.randn(2, 5, 7), dim=-1), torch.randn(4, 5, 7)
    pairs = [(0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)]
    expected = [F.cross_entropy(student[b] / STUDENT_TEMPERATURE, teacher[a]) for a, b in pairs]
    torch.testing.assert_close(dino_loss(teacher, student), torch.stack(expected).mean())


def test_dino_tells_textures_beside_its_own_loss(tmp_path: Path) -> None:
    """With a head that says the same number c of every descriptor, the loss is quadratic in c."""
    torch.manual_seed(0)
    reader = ImageReader(write_images(tmp_path / "images", [image for image, _ in real_pairs("usiigaci/labelled", 2)]))
    crops = Crops(reader, reader.keys(), size=64, model_input=ModelInput(channels=1))
    encoder = Encoder(EncoderConfig.preset("nano", patch=8, channels=1, crop=64))
    plain = DinoObjective(copy.deepcopy(encoder), crops, 0, "cpu")
    told = DinoObjective(encoder, crops, 0, "cpu", texture=sample_crops(crops, 0))
    for ours, theirs in ((told.student, plain.student), (told.teacher, plain.teacher)):
        ours.load_state_dict(theirs.state_dict(), strict=False)
    torch.nn.init.zeros_(told.student.texture_head.weight)

    def loss_of(objective: DinoObjective) -> float:
        torch.manual_seed(0)
        return objective.loss(objective.batch(0, 8)).item()

    losses = {}
    for c in (-1.0, 0.0, 1.0):
        told.student.texture_head.bias.data.fill_(c)
        losses[c] = loss_of(told)
    weight = TEXTURE_SHARE / (1 - TEXTURE_SHARE) * 2 * math.log(PROTOTYPES)
    assert losses[1.0] + losses[-1.0] - 2 * losses[0.0] == pytest.approx(2 * weight, rel=1e-4)
    own = loss_of(plain)
    assert own == pytest.approx(2 * math.log(PROTOTYPES), rel=0.2)  # knowing nothing
    assert 0.5 < (losses[0.0] - own) / weight < 2  # of the set's crops it is 1, the views are of other contrast


def test_dino_targets_are_a_balanced_softmax() -> None:
    """Sinkhorn's fixed point: even row and column sums, and the logits but for a number per row and per column."""
    torch.manual_seed(0)
    logits = torch.randn(40, 8) * 0.1
    q = sinkhorn_targets(logits, rounds=200)
    torch.testing.assert_close(q.sum(dim=1), torch.ones(40))
    torch.testing.assert_close(q.sum(dim=0), torch.full((8,), 5.0), atol=1e-3, rtol=0)
    left = q.log() - logits / 0.04
    left = left - left.mean(dim=0) - left.mean(dim=1, keepdim=True) + left.mean()
    torch.testing.assert_close(left, torch.zeros(40, 8), atol=1e-3, rtol=0)


def test_dino_heads_tell_nearly_equal_tokens_apart() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(16) + 1e-2 * torch.randn(50, 16)
    logits = Head(16)(tokens)
    assert logits.std(dim=0).mean() > 0.05
    assert sinkhorn_targets(logits).max(dim=1).values.mean() > 4 / PROTOTYPES


def test_a_view_is_a_rotated_square_of_the_crop() -> None:
    image = cv2.GaussianBlur(wheel_nuclei()[0].astype(np.float32), (0, 0), 3)[:96, :96, None]
    crop = Normalisation()(image)
    views = [view(crop, 48, (0.5, 1.0), np.random.default_rng(seed)) for seed in range(8)]
    assert all(part.shape == (48, 48, 1) and part.dtype == np.float32 for part in views)
    np.testing.assert_array_equal(views[3], view(crop, 48, (0.5, 1.0), np.random.default_rng(3)))
    assert len({part.tobytes() for part in views}) == 8
    # of the whole crop, the order of intensities remains where it is turned by right angles, in half of the views
    small = cv2.resize(crop[..., 0], (48, 48), interpolation=cv2.INTER_AREA)
    turns = [np.rot90(small, k)[:, ::step] for k in range(4) for step in (1, -1)]
    best = [
        max(spearmanr(t.ravel(), view(crop, 48, (1.0, 1.0), np.random.default_rng(seed)).ravel())[0] for t in turns)
        for seed in range(8)
    ]
    assert 3 <= sum(value > 0.9 for value in best) <= 13


@pytest.mark.parametrize("objective", ["mae", "dino"])
@pytest.mark.parametrize("folder", ["usiigaci/labelled", "dsb2018/fluo", "dsb2018/histo_purple"])
def test_it_learns_on_real_images(tmp_path: Path, folder: str, objective: str) -> None:
    images = write_images(tmp_path / "images", [image[..., :3] for image, _ in real_pairs(folder, 3)])
    parameters = (
        {"crop": 64, "batch_size": 8, "steps": 40} if objective == "mae" else {"steps": 25, "crop": 48, "batch_size": 8}
    )
    result = pretrain(images, tmp_path / "encoder", objective=objective, **parameters)
    share = 0.9 if objective == "mae" else 0.98  # dino begins near the entropy of its prototypes
    assert result.metrics["loss"] < share * result.metrics["first_loss"]
    assert "svg" in result.page.html()
    encoder = load_model(tmp_path / "encoder", Encoder)
    channels = encoder.config.input.channels
    assert channels == (3 if folder.endswith("purple") else 1)
    with torch.no_grad():
        features = encoder(torch.rand(2, channels, 64, 64))
    assert features.std(dim=(0, 2, 3)).mean() > 0.01  # different places look different to it


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
