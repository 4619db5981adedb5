"""The segmentor: shapes, files, and that it works at full resolution."""

import pytest
import torch
from loop_artifacts import payload

from shared.models.backbones.packed_linear import PackedLinear
from shared.models.backbones.vit import Encoder, EncoderConfig, save_encoder
from shared.models.segmentor import Segmentor, SegmentorConfig, for_prediction, load_segmentor, save_segmentor
from shared.system.errors import ArtifactError


def config(channels: int = 1, patch: int = 8, **options) -> SegmentorConfig:
    return SegmentorConfig(encoder=EncoderConfig.of("nano", patch=patch, channels=channels, crop=64), **options)


@pytest.mark.parametrize(("channels", "patch", "heads"), [(1, 8, 1), (3, 16, 2), (5, 8, 1)])
def test_logits_of_every_pixel_and_head(channels, patch, heads):
    segmentor = Segmentor(config(channels, patch, heads=("foreground", "border")[:heads])).eval()
    with torch.no_grad():
        assert segmentor(torch.randn(2, channels, 64, 96)).shape == (2, heads, 64, 96)


def test_files_round_trip(tmp_path):
    torch.manual_seed(0)
    made = Segmentor(config()).eval()
    for name in ("a", "b"):
        save_segmentor(tmp_path / name, made, made.config, "# Card")
    assert payload(tmp_path / "a") == payload(tmp_path / "b")
    loaded, found = load_segmentor(tmp_path / "a")
    assert found == made.config
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), made(x))
        assert torch.equal(loaded.encoder(x), made.encoder(x))


def test_models_of_another_kind_or_shape_are_refused(tmp_path):
    encoder = config().encoder
    save_encoder(tmp_path / "encoder", Encoder(encoder), encoder, "# Card")
    with pytest.raises(ArtifactError, match=r"encoder.*segmentor"):
        load_segmentor(tmp_path / "encoder")
    save_segmentor(tmp_path / "wide", Segmentor(config(width=32)), config(), "# Card")
    with pytest.raises(ArtifactError, match="do not fit"):
        load_segmentor(tmp_path / "wide")


def test_it_learns_a_pattern_finer_than_a_patch():
    """Single pixels, 4 px apart: only a path at full resolution can tell them from their neighbours."""
    torch.manual_seed(0)
    x = torch.rand(2, 1, 32, 32)
    target = (x > 0.8).float()
    segmentor = Segmentor(config()).train()
    optimiser = torch.optim.AdamW(segmentor.parameters(), lr=5e-3)
    for _ in range(60):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(segmentor(x), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = ((segmentor.eval()(x) > 0) == (target > 0)).float().mean()
    assert right > 0.93 > (target == 0).float().mean()


def test_a_path_at_full_resolution_draws_the_border():
    """Alone, with nothing from below, it answers to a change of one pixel, within 3 px, wherever that pixel lies.

    What works at half resolution gives the same only where an image moves by an even number of pixels.
    """
    torch.manual_seed(0)
    segmentor = Segmentor(config()).eval()
    with torch.no_grad():
        segmentor.up_full.weight.zero_()
        segmentor.up_full.bias.zero_()
        blank = torch.zeros(1, 1, 32, 32)
        before = segmentor(blank)
        answers = []
        for y, x in ((14, 14), (15, 14), (15, 15)):
            image = blank.clone()
            image[0, 0, y, x] = 1
            change = (segmentor(image) - before).abs()[0, 0]
            around = change[y - 3 : y + 4, x - 3 : x + 4].clone()
            change[y - 3 : y + 4, x - 3 : x + 4] = 0
            assert around[3, 3] > 1e-4 and around.max() > 1e-3 and change.max() == 0
            answers.append(around)
    torch.testing.assert_close(answers[1], answers[0])
    torch.testing.assert_close(answers[2], answers[0])


def test_for_prediction_it_gives_the_same_and_stays_as_it_was():
    torch.manual_seed(0)
    segmentor = Segmentor(config()).train()
    fast = for_prediction(segmentor, "cpu")
    assert segmentor.training and not fast.training
    assert isinstance(fast.encoder.blocks[0].attn.qkv, PackedLinear)
    assert not isinstance(segmentor.encoder.blocks[0].attn.qkv, PackedLinear)
    x = torch.rand(2, 1, 64, 80)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), segmentor.eval()(x), atol=1e-4, rtol=1e-4)
