"""ResNet against torchvision and timm: equal feature maps with their weights."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from shared.models.backbones.resnet import ResNet
from shared.models.config import ResNetArchitecture

torch.set_num_threads(1)


def with_statistics(network: nn.Module) -> nn.Module:
    """Give batch norms the statistics of a trained network."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1)
    return network.eval()


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("depth", [18, 50])
def test_torchvisions_weights_give_its_feature_maps(depth: int, norm: str) -> None:
    reference = with_statistics(torchvision.models.get_model(f"resnet{depth}"))
    ours = ResNet(ResNetArchitecture(depth=depth, norm=norm), 3).eval()
    left_out = ours.load_state_dict(reference.state_dict(), strict=False)
    assert left_out.unexpected_keys == ["fc.weight", "fc.bias"] and not left_out.missing_keys
    layers = {f"layer{i}": str(i) for i in (2, 3, 4)}
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = torchvision.models._utils.IntermediateLayerGetter(reference, layers)(x)
        maps = ours.feature_maps(x)
    assert [found.stride for found in maps] == [8, 16, 32]
    assert ours.widths == tuple(found.features.shape[1] for found in maps)
    for found, theirs in zip(maps, expected.values(), strict=True):
        torch.testing.assert_close(found.features, theirs, rtol=1e-4, atol=1e-4)


def test_timms_weights_of_variant_d_give_its_feature_maps() -> None:
    reference = with_statistics(timm.create_model("resnet18d", in_chans=2, features_only=True, out_indices=(2, 3, 4)))
    ours = ResNet(ResNetArchitecture(variant="d", norm="batch"), 2).eval()
    ours.load_state_dict(reference.state_dict())
    x = torch.randn(1, 2, 64, 64)
    with torch.no_grad():
        for found, theirs in zip(ours.feature_maps(x), reference(x), strict=True):
            torch.testing.assert_close(found.features, theirs, rtol=1e-4, atol=1e-4)


def test_frozen_statistics_stay_in_training() -> None:
    network = ResNet(ResNetArchitecture(norm="frozen"), 1).train()
    before = {name: value.clone() for name, value in network.state_dict().items() if "bn" in name}
    network.feature_maps(torch.randn(2, 1, 64, 64))[-1].features.sum().backward()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())
    assert all(parameter.grad is None for name, parameter in network.named_parameters() if "bn" in name)
    assert network.get_submodule("layer1.0.conv1").weight.grad.any()


def test_group_norm_sees_one_image_at_a_time() -> None:
    network, x = ResNet(ResNetArchitecture(norm="group"), 5).train(), torch.randn(3, 5, 64, 64)
    with torch.no_grad():
        alone, together = network.feature_maps(x[:1], 1), network.feature_maps(x, 1)
    assert len(alone) == 1
    torch.testing.assert_close(alone[0].features, together[0].features[:1], rtol=1e-4, atol=1e-5)
