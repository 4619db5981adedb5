"""The encoder against timm's vision transformer."""

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from shared.models.backbones import Backbone
from shared.models.backbones.vit import Encoder, sincos_positions
from shared.models.config import VIT_SHAPES, EncoderConfig, VitArchitecture

CONFIG = EncoderConfig.preset("nano", patch=8, channels=2, crop=32)


def timm_vit(config: EncoderConfig, side: int, **extra) -> VisionTransformer:
    """timm's network of the same shape, for images of side x side px."""
    vit = config.architecture
    return VisionTransformer(
        img_size=side,
        patch_size=vit.patch,
        in_chans=config.input.channels,
        num_classes=0,
        embed_dim=vit.width,
        depth=vit.depth,
        num_heads=vit.heads,
        **extra,
    )


@pytest.mark.parametrize(("size", "patch", "channels"), [("nano", 8, 1), ("tiny", 16, 3), ("small", 8, 5)])
def test_forward_is_that_of_timm(size: str, patch: int, channels: int) -> None:
    torch.manual_seed(0)
    config = EncoderConfig.preset(size, patch=patch, channels=channels, crop=4 * patch)
    ours, theirs = Encoder(config).eval(), timm_vit(config, 4 * patch).eval()
    with torch.no_grad():
        ours.cls_token.normal_()
        positions = torch.cat(
            [torch.zeros(1, config.architecture.width), sincos_positions(4, 4, config.architecture.width)]
        )[None]
    theirs.load_state_dict({**ours.state_dict(), "pos_embed": positions})
    x = torch.randn(2, channels, 4 * patch, 4 * patch)
    with torch.no_grad():
        torch.testing.assert_close(ours.tokens(x), theirs.forward_features(x), atol=1e-5, rtol=1e-5)
        last = theirs.forward_intermediates(x, indices=2, norm=True, intermediates_only=True)
        torch.testing.assert_close(ours.features(x, 2), torch.cat(last, dim=1), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours(x), last[-1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", VIT_SHAPES)
def test_parameters_are_those_of_timm(size: str) -> None:
    config = EncoderConfig.preset(size, patch=16, channels=3, crop=224, position_grid=14)
    with torch.device("meta"):
        ours, theirs = Encoder(config), timm_vit(config, 224)
    if size != "nano":
        with torch.device("meta"):
            theirs = timm.create_model(f"vit_{size}_patch16_224", num_classes=0)
    assert {n: p.shape for n, p in ours.state_dict().items()} == {n: p.shape for n, p in theirs.state_dict().items()}


def test_learned_positions_are_resized_as_timm_does() -> None:
    config = EncoderConfig.preset("nano", patch=8, channels=1, crop=32, position_grid=4)
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


def test_feature_maps_are_the_last_blocks_with_the_patch_as_stride() -> None:
    encoder = Encoder(CONFIG).eval()
    backbone: Backbone = encoder
    x = torch.randn(2, 2, 32, 48)
    with torch.no_grad():
        maps = backbone.feature_maps(x, 3)
        assert [(features.shape, stride) for features, stride in maps] == [((2, 128, 4, 6), 8)] * 3
        assert torch.equal(torch.cat([features for features, _ in maps], dim=1), encoder.features(x, 3))
        (last,) = backbone.feature_maps(x)
        assert torch.equal(last.features, maps[-1].features)
        torch.testing.assert_close(last.features, encoder(x))


@pytest.mark.parametrize("rope", [False, True])
def test_tokens_have_their_positions_in_any_order(rope: bool) -> None:
    settings = {"rope": rope, "registers": 2, "layer_scale": True}
    architecture = CONFIG.architecture.model_copy(update=settings)
    encoder = Encoder(CONFIG.model_copy(update={"architecture": architecture})).eval()
    x, order = torch.randn(2, 2, 24, 40), torch.stack([torch.randperm(15), torch.randperm(15)])
    with torch.inference_mode():
        whole = encoder.tokens(x)
        mixed = encoder.embed(x).gather(1, order[..., None].expand(-1, -1, 128))
        found = encoder.encode(mixed, (3, 5), order)
    assert whole.shape == (2, 16, 128)
    torch.testing.assert_close(found[:, :1], whole[:, :1], atol=1e-5, rtol=1e-5)
    expected = whole[:, 1:].gather(1, order[..., None].expand(-1, -1, 128))
    torch.testing.assert_close(found[:, 1:], expected, atol=1e-5, rtol=1e-5)
    encoder.train()(x).sum().backward()  # tables made in inference mode do not prevent training
    assert encoder.reg_token.grad.abs().sum() > 0


def test_published_encoders_settings_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="rope excludes position_grid"):
        VitArchitecture(**{**CONFIG.architecture.model_dump(), "rope": True, "position_grid": 4})


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
