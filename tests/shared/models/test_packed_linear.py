"""Encoders packed for inference compute what they did before."""

import pytest
import torch

from shared.models.backbones.packed_linear import PackedLinear, pack_linear_layers
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig


@pytest.mark.parametrize(
    ("patch", "channels", "side", "more"),
    [
        (8, 1, 32, {}),
        (16, 3, 48, {}),
        (8, 5, 64, {"position_grid": 4}),
        (8, 1, 48, {"rope": True, "registers": 4, "layer_scale": True}),
    ],
)
def test_packed_is_the_same_but_for_rounding(patch: int, channels: int, side: int, more: dict) -> None:
    torch.manual_seed(0)
    config = EncoderConfig.preset("nano", patch=patch, channels=channels, crop=side)
    config = config.model_copy(update={"architecture": config.architecture.model_copy(update=more)})
    encoder = Encoder(config).eval()
    fast = pack_linear_layers(encoder)
    assert isinstance(fast.blocks[0].attn.qkv, PackedLinear), "torch was built without oneDNN"
    for count in (1, 3):
        x = torch.randn(count, channels, side, side)
        with torch.inference_mode():
            torch.testing.assert_close(fast.features(x, 2), encoder.features(x, 2), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(fast.tokens(x), encoder.tokens(x), atol=1e-5, rtol=1e-5)


def test_the_original_stays_as_it_was() -> None:
    encoder = Encoder(EncoderConfig.preset("nano", patch=8, channels=1, crop=32))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    pack_linear_layers(encoder)
    assert encoder.training and all(value.requires_grad for value in encoder.parameters())
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])
