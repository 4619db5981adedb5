"""The segmentor: shapes, and that it works at full resolution."""

import pytest
import torch

from shared.models.backbones.packed_linear import PackedLinear
from shared.models.config import ModelInput, SegmentorArchitecture, SegmentorConfig, VitArchitecture
from shared.models.segmentor import ProbabilityMaps, Segmentor, inference_copy


def config(channels: int = 1, patch: int = 8, downsample: int = 1, **options) -> SegmentorConfig:
    return SegmentorConfig(
        architecture=SegmentorArchitecture(encoder=VitArchitecture.preset("nano", patch), **options),
        input=ModelInput(channels=channels, downsample=downsample),
    )


@pytest.mark.parametrize(("channels", "patch", "width"), [(1, 8, 16), (3, 16, 16), (5, 8, 24)])
def test_logits_of_every_pixel_and_map(channels, patch, width):
    segmentor = Segmentor(config(channels, patch, width=width)).eval()
    with torch.no_grad():
        assert segmentor(torch.randn(2, channels, 64, 96)).shape == (2, len(segmentor.config.maps), 64, 96)


@pytest.mark.parametrize("downsample", [1, 2, 4])
def test_probability_maps_have_the_size_of_the_image(downsample):
    network = ProbabilityMaps(Segmentor(config(downsample=downsample)).eval())
    with torch.no_grad():
        maps = network(torch.rand(1, 1, 64, 128))
    assert maps.shape == (1, 2, 64, 128) and maps.min() >= 0 and maps.max() <= 1


def test_an_unknown_target_is_refused():
    with pytest.raises(ValueError, match="unknown target; there is foreground_distance"):
        config(target="flows")


def test_it_learns_a_pattern_finer_than_a_patch():
    """Single pixels, 4 px apart: only a path at full resolution can tell them from their neighbours."""
    torch.manual_seed(0)
    x = torch.rand(2, 1, 32, 32)
    target = (x > 0.8).float()
    segmentor = Segmentor(config()).train()
    optimiser = torch.optim.AdamW(segmentor.parameters(), lr=5e-3)
    for _ in range(60):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(segmentor(x)[:, :1], target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = ((segmentor.eval()(x)[:, :1] > 0) == (target > 0)).float().mean()
    assert right > 0.93 > (target == 0).float().mean()


def test_a_path_at_full_resolution_draws_the_border():
    """Alone, with nothing from below, it answers to a change of one pixel, within 3 px, wherever that pixel lies.

    What works at half resolution gives the same only where an image moves by an even number of pixels.
    """
    torch.manual_seed(0)
    segmentor = Segmentor(config()).eval()
    with torch.no_grad():
        segmentor.decoder.up_full.weight.zero_()
        segmentor.decoder.up_full.bias.zero_()
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


def test_the_inference_copy_gives_the_same_and_the_original_stays_as_it_was():
    torch.manual_seed(0)
    segmentor = Segmentor(config()).train()
    fast = inference_copy(segmentor, "cpu")
    assert segmentor.training and not fast.training
    assert isinstance(fast.encoder.blocks[0].attn.qkv, PackedLinear)
    assert not isinstance(segmentor.encoder.blocks[0].attn.qkv, PackedLinear)
    x = torch.rand(2, 1, 64, 80)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), segmentor.eval()(x), atol=1e-4, rtol=1e-4)
