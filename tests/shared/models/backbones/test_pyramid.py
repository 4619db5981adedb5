"""Three feature maps of a vision transformer, whatever its patch."""

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from shared.models.backbones.pyramid import Pyramid
from shared.models.config import DetectorArchitecture, EncoderConfig, ModelInput, VitArchitecture

torch.set_num_threads(1)


def pyramid(patch: int, **fields) -> Pyramid:
    vit = VitArchitecture(size="nano", width=32, depth=1, heads=2, patch=patch)
    architecture = DetectorArchitecture(backbone=vit, classes=("cell",), width=16, **fields)
    torch.manual_seed(0)
    return Pyramid(EncoderConfig(architecture=vit, input=ModelInput(channels=2)), architecture).eval()


@pytest.mark.parametrize("detail", [True, False])
@pytest.mark.parametrize("kind", ["vitdet", "resample"])
@pytest.mark.parametrize("patch", [4, 8, 14, 16])
def test_strides_and_widths(patch: int, kind: str, detail: bool) -> None:
    network, x = pyramid(patch, pyramid=kind, detail=detail), torch.randn(2, 2, 64, 96)
    with torch.no_grad():
        maps = network.feature_maps(x)
    assert [(found.stride, *found.features.shape) for found in maps] == [
        (stride, 2, width, 64 // stride, 96 // stride)
        for stride, width in zip((8, 16, 32), network.widths, strict=True)
    ]
    assert all(found.features.std() > 0.05 for found in maps)


def test_resampling_is_interpolation_and_means() -> None:
    network, x = pyramid(16, pyramid="resample", detail=False), torch.randn(1, 2, 64, 64)
    with torch.no_grad():
        tokens, maps = network.encoder(x), network.feature_maps(x)
    torch.testing.assert_close(maps[1].features, tokens)
    torch.testing.assert_close(maps[2].features, avg_pool2d(tokens, 2))
    torch.testing.assert_close(maps[0].features, interpolate(tokens, scale_factor=2, mode="bilinear"))


def test_a_patch_of_14_px_covers_16_px() -> None:
    network, x = pyramid(14, pyramid="resample", detail=False), torch.randn(1, 2, 64, 96)
    smaller = interpolate(x, size=(56, 84), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(network.feature_maps(x)[1].features, network.encoder(smaller))


def test_details_do_not_pass_the_transformer() -> None:
    """Pixels that change nothing in a patch's mean change the detail channels alone, where the transformer is blind."""
    network = pyramid(16, pyramid="resample", detail=True)
    torch.nn.init.constant_(network.encoder.patch_embed.proj.weight, 0.01)
    x = torch.randn(1, 2, 64, 64)
    flipped = x.reshape(1, 2, 4, 16, 4, 16).flip(3, 5).reshape(1, 2, 64, 64)
    with torch.no_grad():
        before, after = (network.feature_maps(image)[0].features for image in (x, flipped))
    torch.testing.assert_close(before[:, :32], after[:, :32], rtol=1e-3, atol=1e-3)
    assert (before[:, 32:] - after[:, 32:]).abs().mean() > 0.1
