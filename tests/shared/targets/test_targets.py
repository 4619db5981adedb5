"""What holds for every training target: its functions, its maps, and that what it encodes is what it decodes."""

import inspect

import numpy as np
import pytest
import torch
from real_labels import wheel_nuclei

from shared.artifacts.postprocessing import PostProcessing
from shared.data.crops import Window, orient
from shared.metrics.tally import tally
from shared.models.config import ModelInput, SegmentorArchitecture, SegmentorConfig, VitArchitecture
from shared.models.decoders.target_maps import TARGET_MAPS
from shared.models.segmentor import Segmentor
from shared.targets import TARGETS, Target

FUNCTIONS = [name for name, _ in inspect.getmembers(Target, inspect.isfunction) if not name.startswith("_")]
EXACT = PostProcessing(min_area_px=1, min_area_share=0.0, min_distance_share=0.0)
"""Settings under which no object is dropped."""
every_target = pytest.mark.parametrize("name", TARGETS)


def nuclei(side: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Image (side, side, 1) and instances of real nuclei."""
    image, labels = wheel_nuclei()
    return image[:side, :side, None], labels[:side, :side]


def trusted(labels: np.ndarray) -> np.ndarray:
    return np.full(labels.shape, 255, np.uint8)


def perfect_logits(target: Target, planes: np.ndarray, maps: int) -> torch.Tensor:
    """Logits (1, maps, S, S) that minimise the loss against planes (P, S, S), found by gradient descent."""
    logits = torch.zeros(1, maps, *planes.shape[1:], requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.5)
    for _ in range(60):
        optimiser.zero_grad()
        target.loss(logits, torch.from_numpy(planes)[None]).backward()
        optimiser.step()
    return logits.detach()


def test_every_target_has_maps_and_a_config_may_name_it() -> None:
    assert list(TARGETS) == list(TARGET_MAPS)
    for name in TARGET_MAPS:
        architecture = SegmentorArchitecture(encoder=VitArchitecture.preset("nano", 8), target=name)
        config = SegmentorConfig(architecture=architecture, input=ModelInput(channels=1))
        assert Segmentor(config).decoder.head[-1].out_channels == len(config.maps)


@every_target
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_targets_functions_are_those_of_the_protocol(name: str, function: str) -> None:
    declared = list(inspect.signature(getattr(Target, function)).parameters.values())[1:]
    found = list(inspect.signature(getattr(TARGETS[name], function)).parameters.values())
    assert [(p.name, p.kind) for p in found] == [(p.name, p.kind) for p in declared]
    assert inspect.getdoc(getattr(TARGETS[name], function))


@every_target
def test_planes_are_cut_as_the_image_is(name: str) -> None:
    target, (_, labels) = TARGETS[name], nuclei()
    planes = target.encode(labels, trusted(labels), "instances")
    assert planes.shape[:2] == labels.shape and planes.dtype == np.uint8
    np.testing.assert_array_equal(planes[..., 0], labels > 0)
    for window in (Window("", 10, 20, 64, 1), Window("", 30, 5, 64, 3, True), Window("", 220, 230, 64)):
        part = target.cut(planes, window, 64)
        assert part.shape == (planes.shape[2], 64, 64) and part.dtype == np.float32
        rows, columns = (np.pad(np.arange(256), (0, 64), mode="reflect")[i : i + 64] for i in (window.y, window.x))
        np.testing.assert_array_equal(part[0], orient(planes[rows[:, None], columns, 0], window))
    assert target.cut(planes, Window("", 0, 0, 96), 48).shape == (planes.shape[2], 48, 48)


@every_target
def test_labels_come_back_from_maps_of_the_least_loss(name: str) -> None:
    target, (image, labels) = TARGETS[name], nuclei()
    planes = target.cut(target.encode(labels, trusted(labels), "instances"), Window("", 0, 0, 256), 256)
    logits = perfect_logits(target, planes, len(TARGET_MAPS[name]))
    wanted = torch.from_numpy(planes)[None]
    assert target.loss(logits, wanted) < 0.2 * target.loss(torch.zeros_like(logits), wanted)
    maps = torch.sigmoid(logits)[0].numpy()
    mask = target.foreground(maps.copy(), image, EXACT)
    assert mask.dtype == np.uint8
    found = target.decode(maps.copy(), image, EXACT)
    np.testing.assert_array_equal(found.mask, mask)
    metrics = tally(labels, found.labels).metrics()
    assert metrics["dice"] > (0.92 if name == "distance" else 0.98), "a distance of 0.09 begins within the border"
    assert metrics["f1"] > 0.95, metrics


@every_target
def test_pixels_without_confidence_teach_nothing(name: str) -> None:
    target, (_, labels) = TARGETS[name], nuclei(64)
    confidence = trusted(labels)
    confidence[:, :32] = 0
    planes = target.cut(target.encode(labels, confidence, "instances"), Window("", 0, 0, 64), 64)
    logits = torch.zeros(1, len(TARGET_MAPS[name]), 64, 64, requires_grad=True)
    target.loss(logits, torch.from_numpy(planes)[None]).backward()
    gradient = logits.grad[0].abs().amax(dim=0)
    assert gradient[:, :32].max() == 0 and gradient[:, 32:].min() > 0


@every_target
def test_a_dropped_fraction_lowers_the_loss(name: str) -> None:
    target, (_, labels) = TARGETS[name], nuclei(64)
    planes = target.cut(target.encode(labels, trusted(labels), "instances"), Window("", 0, 0, 64), 64)
    torch.manual_seed(0)
    logits, wanted = torch.randn(2, len(TARGET_MAPS[name]), 64, 64), torch.from_numpy(np.stack([planes] * 2))
    assert target.loss(logits, wanted, drop_fraction=0.2) < target.loss(logits, wanted)
