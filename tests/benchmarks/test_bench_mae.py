"""What the benchmark compares our step with is the same autoencoder."""

import torch
from bench_mae import EveryToken

from components.pretrain.mae import Mae
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig


def test_every_token_predicts_what_mae_does_where_nothing_is_hidden() -> None:
    torch.manual_seed(0)
    config = EncoderConfig.preset("nano", patch=8, channels=2, crop=32)
    ours, every = Mae(Encoder(config), mask_ratio=0).eval(), EveryToken(Encoder(config), mask_ratio=0).eval()
    every.load_state_dict(ours.state_dict())
    x, noise = torch.rand(3, 2, 32, 32), torch.rand(3, 16)
    with torch.no_grad():
        wanted, found = ours(x, noise)[1], every(x, noise)[1]
    assert wanted.shape == (3, 16, 8 * 8 * 2)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
