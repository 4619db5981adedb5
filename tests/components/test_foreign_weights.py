"""Published encoders: DINOv2 and DINOv3 under every naming of parameters, against timm's and transformers' own."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
import transformers
from real_labels import wheel_nuclei
from safetensors.torch import save_file
from timm.layers import RotaryEmbeddingDinoV3, resample_patch_embed
from timm.models import eva, vision_transformer
from torch import Tensor, nn

from components.pretrain.component import Pretrain
from components.pretrain.foreign_weights import adapt_checkpoint
from components.pretrain.main import run
from components.pretrain.patch_embedding import resample_kernel
from shared.artifacts.image_set import ImageWriter
from shared.artifacts.kinds import ImageSet, Model
from shared.artifacts.manifest import seal
from shared.models.backbones.checkpoint_file import read_tensors
from shared.models.backbones.rope import rotation
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig
from shared.models.load import load_model
from shared.system.errors import UserError

GRID = 6
"""Learned positions of the checkpoints, down and across."""
MEAN, DEVIATION = torch.tensor(timm.data.IMAGENET_DEFAULT_MEAN), torch.tensor(timm.data.IMAGENET_DEFAULT_STD)
NAMES = ("patch14_dinov2", "patch14_reg4_dinov2", "patch16_dinov3", "patch16_dinov3_qkvb")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Networks this small are ten times as fast on one thread as on two where the machine is busy."""
    monkeypatch.setenv("CYTOLOOM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def theirs(name: str, patch: int | None = None, **more) -> nn.Module:
    """timm's network of this family with random weights, of the shape of our nano."""
    torch.manual_seed(0)
    family_patch = int(name.split("_")[0].removeprefix("patch"))
    shape = {"embed_dim": 128, "depth": 6, "num_heads": 4, "dynamic_img_size": True}
    side = {"patch_size": patch or family_patch, "img_size": GRID * (patch or family_patch)}
    model = timm.create_model(f"vit_small_{name}", pretrained=False, num_classes=0, **{**shape, **side, **more})
    return shaken(model).eval()


@torch.no_grad()
def shaken(module: nn.Module) -> nn.Module:
    """Every parameter moved, so that each of them matters; LayerScale is about 0.5, not the 0.00001 it begins at."""
    for name, parameter in module.named_parameters():
        if "gamma" in name or "lambda" in name:
            parameter.uniform_(0.2, 1.0)
        else:
            parameter.add_((0.5 if "token" in name or "pos" in name else 0.05) * torch.randn_like(parameter))
    return module


def config(patch: int, channels: int = 3) -> EncoderConfig:
    return EncoderConfig.preset("nano", patch=patch, channels=channels, crop=64)


def as_imagenet(x: Tensor) -> Tensor:
    """(N, 1 or 3, H, W) in [0, 1] -> (N, 3, H, W), as the networks were trained on."""
    return (x.expand(-1, 3, -1, -1) - MEAN[:, None, None]) / DEVIATION[:, None, None]


def features(model: nn.Module, x: Tensor) -> Tensor:
    """timm's class token and patch tokens (N, 1 + T, width), without its registers."""
    tokens = model.forward_features(as_imagenet(x))
    return torch.cat([tokens[:, :1], tokens[:, model.num_prefix_tokens :]], dim=1)


# --- they compute what they did -----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("patch", [8, 16])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_timms_checkpoints_compute_what_they_did(tmp_path: Path, name: str, patch: int, channels: int) -> None:
    given = theirs(name)
    save_file(given.state_dict(), tmp_path / "vit.safetensors")
    reference = theirs(name, patch)
    kernel = resample_patch_embed(given.patch_embed.proj.weight, [patch, patch])
    reference.load_state_dict({**given.state_dict(), "patch_embed.proj.weight": kernel})
    state = read_tensors(tmp_path / "vit.safetensors")
    ours = adapt_checkpoint(state, config(patch, channels), tmp_path / "vit.safetensors", "imagenet")
    found = ours.architecture
    assert found.rope == ("dinov3" in name) and found.registers == (0 if name == NAMES[0] else 4)
    assert found.position_grid == (None if found.rope else GRID) and found.layer_scale
    assert found.norm_eps == reference.norm.eps
    for rows, columns in ((GRID, GRID), (5, 7)):
        x = torch.rand(2, channels, rows * patch, columns * patch)
        expected = features(reference, x)
        assert expected.std() > 0.1
        torch.testing.assert_close(ours.eval().tokens(x), expected, atol=2e-4, rtol=2e-4)


def as_published(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's state dict as facebookresearch publishes it; timm's own conversion is the way back."""
    out = {key.replace("gamma_", "ls"): value for key, value in state.items()}
    out = {f"{key}.gamma" if key.endswith((".ls1", ".ls2")) else key: value for key, value in out.items()}
    out["mask_token"] = torch.randn(1, 128)
    if "dinov2" in name and "reg_token" in out:
        out["register_tokens"] = out.pop("reg_token")
        out["pos_embed"] = torch.cat([torch.randn(1, 1, 128), out["pos_embed"]], dim=1)
    if "dinov3" in name:
        out["storage_tokens"] = out.pop("reg_token")
        out["rope_embed.periods"] = RotaryEmbeddingDinoV3(32).periods.bfloat16()
        for i in range(6):
            q, v = (out.pop(f"blocks.{i}.attn.{letter}_bias") for letter in "qv")
            out[f"blocks.{i}.attn.qkv.bias"] = torch.cat([q, torch.full_like(q, torch.nan), v])
            mask = torch.ones(3, 128)
            mask[1] = 0
            out[f"blocks.{i}.attn.qkv.bias_mask"] = mask.flatten()
    return out


@pytest.mark.parametrize("name", ["patch14_dinov2", "patch14_reg4_dinov2", "patch16_dinov3_qkvb"])
@torch.no_grad()
def test_published_checkpoints_compute_what_timm_makes_of_them(tmp_path: Path, name: str) -> None:
    reference = theirs(name, 16)
    published = as_published(name, reference.state_dict())
    torch.save(published, tmp_path / "vit.pth")
    filtered = (eva if "dinov3" in name else vision_transformer).checkpoint_filter_fn(dict(published), reference)
    reference.load_state_dict(filtered)
    ours = adapt_checkpoint(read_tensors(tmp_path / "vit.pth"), config(16), tmp_path / "vit.pth", "imagenet")
    x = torch.rand(2, 3, 80, 112)
    torch.testing.assert_close(ours.eval().tokens(x), features(reference, x), atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("named", ["in memory", "in a file"])
@pytest.mark.parametrize("family", ["Dinov2", "Dinov2WithRegisters", "DINOv3ViT"])
@torch.no_grad()
def test_transformers_checkpoints_compute_what_they_did(tmp_path: Path, family: str, named: str) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "patch_size": 8, "image_size": 48}
    if family == "DINOv3ViT":
        shape |= {"intermediate_size": 512, "num_register_tokens": 4}
    model = shaken(getattr(transformers, f"{family}Model")(getattr(transformers, f"{family}Config")(**shape))).eval()
    if named == "in a file":
        model.save_pretrained(tmp_path)
    else:
        save_file(model.state_dict(), tmp_path / "model.safetensors")
    path = tmp_path / "model.safetensors"
    ours = adapt_checkpoint(read_tensors(path), config(8), path, "imagenet")
    found = ours.architecture
    assert found.registers == (0 if family == "Dinov2" else 4)
    x = torch.rand(2, 3, 48, 48)
    tokens = model(as_imagenet(x)).last_hidden_state
    expected = torch.cat([tokens[:, :1], tokens[:, 1 + found.registers :]], dim=1)
    torch.testing.assert_close(ours.eval().tokens(x), expected, atol=2e-4, rtol=2e-4)


@torch.no_grad()
def test_registers_with_positions_of_their_own(tmp_path: Path) -> None:
    shape = {"img_size": 48, "patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4, "num_classes": 0}
    model = shaken(vision_transformer.VisionTransformer(**shape, reg_tokens=3)).eval()
    ours = adapt_checkpoint(model.state_dict(), config(8), tmp_path, "imagenet")
    x = torch.rand(2, 3, 48, 48)
    assert ours.architecture.registers == 3
    torch.testing.assert_close(ours.eval().tokens(x), features(model, x), atol=2e-4, rtol=2e-4)


# --- the parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns", "head"), [(6, 6, 64), (5, 9, 32), (1, 2, 64)])
def test_rotary_positions_are_those_of_timm(rows: int, columns: int, head: int) -> None:
    sin, cos = RotaryEmbeddingDinoV3(head).get_embed([rows, columns]).chunk(2, dim=-1)
    assert torch.equal(rotation(rows, columns, head), torch.stack([cos, sin]))


@pytest.mark.parametrize(("old", "new"), [(14, 8), (14, 16), (16, 8), (8, 16), (8, 8)])
def test_kernels_are_resampled_as_timm_does(old: int, new: int) -> None:
    kernel = torch.randn(5, 3, old, old)
    torch.testing.assert_close(
        resample_kernel(kernel, new), resample_patch_embed(kernel, [new, new]), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("scaling", ["half", "unit"])
@torch.no_grad()
def test_other_scalings_of_the_input(tmp_path: Path, scaling: str) -> None:
    model, x = theirs("patch14_dinov2", 8), torch.rand(2, 3, 40, 40)
    ours = adapt_checkpoint(model.state_dict(), config(8), tmp_path, scaling)
    expected = model.forward_features((x - 0.5) / 0.5 if scaling == "half" else x)
    torch.testing.assert_close(ours.eval().tokens(x), expected, atol=2e-4, rtol=2e-4)


@torch.no_grad()
def test_many_channels_are_scaled_as_the_colours_they_are_copies_of(tmp_path: Path) -> None:
    """An image of the mean colour is all zero to their network: what comes of it is the bias alone."""
    state = theirs("patch14_dinov2", 8).state_dict()
    ours = adapt_checkpoint(state, config(8, 5), tmp_path, "imagenet")
    x = MEAN[[0, 1, 2, 0, 1]].reshape(1, 5, 1, 1).expand(1, 5, 8, 8)
    expected = state["patch_embed.proj.bias"]
    torch.testing.assert_close(ours.patch_embed(x).flatten(), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_adapted_encoder_can_be_adapted_again(tmp_path: Path) -> None:
    """As a plain file of parameters, of the encoder that `pretrain` wrote."""
    for name in NAMES:
        first = adapt_checkpoint(theirs(name).state_dict(), config(8, 1), tmp_path, "imagenet")
        second = adapt_checkpoint(first.state_dict(), config(8, 1), tmp_path, "unit")
        assert second.config == first.config
        torch.testing.assert_close(second.state_dict(), first.state_dict())


# --- what does not fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_another_size_is_named(size: str) -> None:
    with torch.device("meta"):
        state = timm.create_model(f"vit_{size}_patch16_dinov3", pretrained=False).state_dict()
    with pytest.raises(UserError, match=rf"given\.pth is a ViT of width .*give --size {size}"):
        adapt_checkpoint(state, config(8), Path("given.pth"))


@pytest.mark.parametrize("name", ["vit_giant_patch14_reg4_dinov2", "vit_small_plus_patch16_dinov3"])
def test_gated_models_are_refused(name: str) -> None:
    with torch.device("meta"):
        state = timm.create_model(name, pretrained=False, depth=1).state_dict()
    with pytest.raises(UserError, match=r"given\.pth: its MLPs are gated .*give one of the ViTs small, base and large"):
        adapt_checkpoint(state, config(8), Path("given.pth"))
    packed = {key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value for key, value in state.items()}
    with pytest.raises(UserError, match="its MLPs are gated"):
        adapt_checkpoint(packed, config(8), Path("given.pth"))


def test_ambiguous_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 1 channels.*--weights_input unit"):
        adapt_checkpoint(Encoder(config(8, 1)).state_dict(), config(8, 1), tmp_path, "imagenet")
    state = theirs("patch14_dinov2").state_dict()
    del state["pos_embed"]
    with pytest.raises(UserError, match="no positions"):
        adapt_checkpoint(state, config(8), tmp_path)
    state = theirs("patch16_dinov3").state_dict()
    with pytest.raises(UserError, match="periods"):
        adapt_checkpoint({**state, "rope_embed.periods": torch.ones(8)}, config(8), tmp_path)


# --- the stage ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageSet of one piece of the wheel's nuclei."""
    folder = tmp_path_factory.mktemp("nuclei") / "images"
    with ImageWriter(folder) as writer:
        writer.add("image", wheel_nuclei()[0][:192, :192, None], source="image.tif", split="train")
    seal(folder, ImageSet)
    return folder


@pytest.mark.parametrize("name", ["patch14_reg4_dinov2", "patch16_dinov3"])
def test_given_weights_are_kept_unless_training_is_requested(
    tmp_path: Path, nuclei: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "given.safetensors"
    save_file(theirs(name).state_dict(), path)
    parameters = {"images": nuclei, "weights": str(path), "crop": 64, "steps": 3, "batch_size": 4}
    with caplog.at_level(logging.INFO):
        result = run(Pretrain(encoder=tmp_path / "kept", **parameters))
    reason = "the encoder of given.safetensors is kept unchanged"
    assert result.skipped == reason and reason in caplog.text
    expected = adapt_checkpoint(read_tensors(path), config(8, 1), path, "imagenet")
    encoder = load_model(tmp_path / "kept", Encoder)
    assert encoder.config == expected.config
    torch.testing.assert_close(encoder.state_dict(), expected.state_dict(), atol=0, rtol=0)
    assert Pretrain(encoder=tmp_path / "kept", **parameters).max_processes() == 1
    seal(tmp_path / "kept", Model)
    for objective in ("mae", "dino"):
        given = Pretrain(encoder=tmp_path / objective, objective=objective, **parameters)
        assert run(given).skipped is None and given.max_processes() == 4
        trained = load_model(tmp_path / objective, Encoder).state_dict()
        assert all(value.isfinite().all() for value in trained.values())
        assert not torch.equal(trained["blocks.0.attn.qkv.weight"], encoder.state_dict()["blocks.0.attn.qkv.weight"])


def test_from_scratch_and_from_an_artifact_auto_is_mae(tmp_path: Path) -> None:
    places = {"images": tmp_path, "encoder": tmp_path}
    assert Pretrain(**places).chosen_objective() == "mae"
    assert Pretrain(**places, weights_from="folder").chosen_objective() == "mae"
    assert Pretrain(**places, weights="vit.pth").chosen_objective() == "none"
    assert Pretrain(**places, weights="vit.pth", objective="dino").chosen_objective() == "dino"
