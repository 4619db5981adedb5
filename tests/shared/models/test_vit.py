"""The encoder against timm's vision transformer, and the files of a Model artifact."""

import json
from pathlib import Path

import pytest
import timm
import torch
from pydantic import BaseModel
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer

from shared.models.backbones.vit import SIZES, Encoder, EncoderConfig, load_encoder, save_encoder, sincos_positions
from shared.models.files import load_state, read_config, save_model
from shared.system.errors import ArtifactError

CONFIG = EncoderConfig.of("nano", patch=8, channels=2, crop=32)


def timm_vit(config: EncoderConfig, side: int, **extra) -> VisionTransformer:
    """timm's network of the same shape, for images of side x side px."""
    return VisionTransformer(
        img_size=side,
        patch_size=config.patch,
        in_chans=config.channels,
        num_classes=0,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        **extra,
    )


@pytest.mark.parametrize(("size", "patch", "channels"), [("nano", 8, 1), ("tiny", 16, 3), ("small", 8, 5)])
def test_forward_is_that_of_timm(size: str, patch: int, channels: int) -> None:
    torch.manual_seed(0)
    config = EncoderConfig.of(size, patch=patch, channels=channels, crop=4 * patch)
    ours, theirs = Encoder(config).eval(), timm_vit(config, 4 * patch).eval()
    with torch.no_grad():
        ours.cls_token.normal_()
        positions = torch.cat([torch.zeros(1, config.width), sincos_positions(4, 4, config.width)])[None]
    theirs.load_state_dict({**ours.state_dict(), "pos_embed": positions})
    x = torch.randn(2, channels, 4 * patch, 4 * patch)
    with torch.no_grad():
        torch.testing.assert_close(ours.tokens(x), theirs.forward_features(x), atol=1e-5, rtol=1e-5)
        last = theirs.forward_intermediates(x, indices=2, norm=True, intermediates_only=True)
        torch.testing.assert_close(ours.features(x, 2), torch.cat(last, dim=1), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours(x), last[-1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_those_of_timm(size: str) -> None:
    config = EncoderConfig.of(size, patch=16, channels=3, crop=224, position_grid=14)
    with torch.device("meta"):
        ours, theirs = Encoder(config), timm_vit(config, 224)
    if size != "nano":
        with torch.device("meta"):
            theirs = timm.create_model(f"vit_{size}_patch16_224", num_classes=0)
    assert {n: p.shape for n, p in ours.state_dict().items()} == {n: p.shape for n, p in theirs.state_dict().items()}


def test_learned_positions_are_resized_as_timm_does() -> None:
    config = EncoderConfig.of("nano", patch=8, channels=1, crop=32, position_grid=4)
    ours, theirs = Encoder(config).eval(), timm_vit(config, 32, dynamic_img_size=True).eval()
    with torch.no_grad():
        ours.pos_embed.normal_()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 1, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours.tokens(x), theirs.forward_features(x), atol=1e-5, rtol=1e-5)


def test_any_grid_any_subset_of_tokens() -> None:
    encoder = Encoder(CONFIG).eval()
    x = torch.randn(1, 2, 40, 88)
    with torch.no_grad():
        assert encoder(x).shape == (1, 128, 5, 11)
        assert encoder.features(x, 3).shape == (1, 384, 5, 11)
        torch.testing.assert_close(encoder.features(x, 3)[:, -128:], encoder(x))
        assert encoder.encode(encoder.embed(x)[:, [0, 7, 30]], (5, 11), torch.tensor([[0, 7, 30]])).shape == (1, 4, 128)


@pytest.mark.parametrize("rope", [False, True])
def test_tokens_know_their_places_in_any_order(rope: bool) -> None:
    encoder = Encoder(CONFIG.model_copy(update={"rope": rope, "registers": 2, "layer_scale": True})).eval()
    x, order = torch.randn(2, 2, 24, 40), torch.stack([torch.randperm(15), torch.randperm(15)])
    with torch.inference_mode():
        whole = encoder.tokens(x)
        mixed = encoder.embed(x).gather(1, order[..., None].expand(-1, -1, 128))
        found = encoder.encode(mixed, (3, 5), order)
    assert whole.shape == (2, 16, 128)
    torch.testing.assert_close(found[:, :1], whole[:, :1], atol=1e-5, rtol=1e-5)
    expected = whole[:, 1:].gather(1, order[..., None].expand(-1, -1, 128))
    torch.testing.assert_close(found[:, 1:], expected, atol=1e-5, rtol=1e-5)
    encoder.train()(x).sum().backward()  # what inference kept does not stand in the way
    assert encoder.reg_token.grad.abs().sum() > 0


def test_what_others_encoders_need_is_not_written_for_ours(tmp_path: Path) -> None:
    save_encoder(tmp_path / "ours", Encoder(CONFIG), CONFIG, "")
    found = set(json.loads((tmp_path / "ours/config.json").read_text()))
    assert not {"rope", "registers", "layer_scale", "norm_eps"} & found
    more = {"rope": True, "registers": 4, "layer_scale": True, "norm_eps": 1e-5}
    config = CONFIG.model_copy(update=more)
    save_encoder(tmp_path / "theirs", Encoder(config), config, "")
    assert load_encoder(tmp_path / "theirs")[1] == config
    with pytest.raises(ValueError, match="positions are of one kind"):
        EncoderConfig(**{**config.model_dump(), "position_grid": 4})


def test_positions_are_fixed_in_use_and_begin_anywhere_in_training() -> None:
    encoder, x = Encoder(CONFIG), torch.randn(1, 2, 32, 32)
    with torch.no_grad():
        assert torch.equal(encoder.eval()(x), encoder(x))
        torch.manual_seed(3)
        first, second = encoder.train()(x), encoder(x)
        assert not torch.allclose(first, second)
        torch.manual_seed(3)
        assert torch.equal(encoder(x), first)


def test_position_of_a_larger_grid_continues_the_smaller() -> None:
    large, small = sincos_positions(8, 8, 64).reshape(8, 8, 64), sincos_positions(3, 4, 64, (2, 1)).reshape(3, 4, 64)
    torch.testing.assert_close(large[2:5, 1:5], small)


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    encoder, x = Encoder(CONFIG).eval(), torch.randn(1, 2, 32, 32)
    for name in ("a", "b"):
        save_encoder(tmp_path / name, encoder, CONFIG, "# An encoder")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["MODEL_CARD.md", "config.json", "model.safetensors"]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    with safe_open(tmp_path / "a/model.safetensors", "pt") as file:
        assert not file.metadata()
    loaded, config = load_encoder(tmp_path / "a")
    assert config == CONFIG and not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(x), encoder(x))


class Other(BaseModel):
    kind: str = "classifier"


def test_another_kind_of_model_is_named(tmp_path: Path) -> None:
    save_model(tmp_path, {"w": torch.zeros(2)}, Other(), "# Other")
    assert read_config(tmp_path) == {"kind": "classifier"}
    assert torch.equal(load_state(tmp_path)["w"], torch.zeros(2))
    with pytest.raises(ArtifactError, match=r"'classifier'.*'encoder'"):
        load_encoder(tmp_path)


def test_damaged_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"config\.json: No such file"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match="not JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ArtifactError, match="which kind"):
        read_config(tmp_path)

    save_encoder(tmp_path, Encoder(CONFIG), CONFIG, "")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"depth": 5}))
    with pytest.raises(ArtifactError, match=r"weights do not fit.*blocks\.5"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"depth": -1}))
    with pytest.raises(ArtifactError, match="depth"):
        load_encoder(tmp_path)

    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04torch")
    with pytest.raises(ArtifactError, match="not a readable safetensors"):
        load_encoder(tmp_path)


def test_weights_are_for_whoever_may_read_the_rest(tmp_path: Path) -> None:
    config = EncoderConfig.of("nano", patch=8, channels=1, crop=64)
    save_encoder(tmp_path, Encoder(config), config, "# An encoder")
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
