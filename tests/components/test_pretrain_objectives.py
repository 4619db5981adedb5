"""Objectives of pretraining, MAE and DINO: against transformers' MAE and torch's losses, on real images."""

import copy
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pretraining import pretrain, transformers_mae, write_images
from real_labels import real_pairs, wheel_nuclei
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from components.pretrain.dino import PROTOTYPES, Head
from components.pretrain.dino_loss import STUDENT_TEMPERATURE, dino_loss, sinkhorn_targets
from components.pretrain.dino_objective import DinoObjective, view
from components.pretrain.initial_encoder import fit_embedding, sample_crops
from components.pretrain.mae import Mae, normalise_patches
from components.pretrain.mae_objective import input_and_target
from components.pretrain.patches import images_of, patches_of
from components.pretrain.texture import DESCRIPTORS, LOG_OFFSET, ORIENTATIONS, TEXTURE_SHARE, descriptors
from shared.artifacts.image_set import ImageReader
from shared.data.crops import Crops
from shared.imaging.normalise import Normalisation
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig, ModelInput
from shared.models.load import load_model


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLOOM_THREADS", "1")


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
