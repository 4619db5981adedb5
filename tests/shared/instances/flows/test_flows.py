"""Flow fields and dynamics: equal to cellpose's own, the same for an instance whatever is beside it, and edge cases."""

import numpy as np
import pytest
import torch
from cellpose import dynamics
from real_labels import wheel_nuclei
from skimage.metrics import contingency_table

from shared.instances.flows.dynamics import follow, instances_of_flow
from shared.instances.flows.field import distance_flow, heat_flow
from shared.instances.label_image import relabel

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """Instances of real nuclei, numbered 1..n."""
    return relabel(wheel_nuclei()[1][:256, :256]).astype(np.int64)


@pytest.fixture(scope="module")
def bars() -> np.ndarray:
    """Two long cells side by side, and a round one that touches them."""
    found = np.zeros((64, 96), np.int64)
    found[10:16, 5:85], found[16:24, 10:80] = 1, 2
    y, x = np.mgrid[:64, :96]
    found[(y - 36) ** 2 + (x - 40) ** 2 < 144] = 3
    return found


def best_iou(labels: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Largest IoU of each instance of `labels` with one of `other`."""
    common = contingency_table(labels, other).toarray()
    inside = common[1:, 1:]
    union = common[1:].sum(1)[:, None] + common[:, 1:].sum(0) - inside
    return (inside / union).max(axis=1)[common[1:].sum(1) > 0]


def by_cellpose(flow: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Instances by cellpose's Euler integration and clustering, nothing dropped."""
    where = np.nonzero(mask)
    ends = dynamics.follow_flows(flow * mask, where, niter=200)
    return dynamics.get_masks_torch(ends.int(), where, mask.shape)


def disturbed(flow: np.ndarray, level: float) -> np.ndarray:
    """A flow with noise that is smooth over some pixels, as a network's errors are."""
    noise = torch.nn.functional.avg_pool2d(torch.randn(1, 2, *flow.shape[1:]), 5, 1, 2)[0].numpy()
    return (0.8 * flow + level * noise / noise.std()).astype(np.float32)


def test_the_heat_flow_is_cellposes(labels: np.ndarray) -> None:
    wanted, _ = dynamics.masks_to_flows_gpu(labels)
    found = heat_flow(labels)
    inside = labels > 0
    cosine = (found * wanted).sum(axis=0)[inside]
    assert cosine.mean() > 0.995 and np.quantile(cosine, 0.01) > 0.98
    assert not found[:, ~inside].any()


def test_with_one_instance_it_is_cellposes_to_rounding(bars: np.ndarray) -> None:
    for number in (1, 2, 3):
        alone = (bars == number).astype(np.int64)
        wanted, _ = dynamics.masks_to_flows_gpu(alone)
        found = heat_flow(alone)
        known = (found != 0).any(axis=0)
        assert known.sum() >= alone.sum() - 1, "in the very middle it is 0, where cellpose has rounding errors"
        np.testing.assert_allclose(found[:, known], wanted[:, known], atol=2e-3)


@pytest.mark.parametrize("field", [heat_flow, distance_flow])
def test_the_flow_of_an_instance_does_not_depend_on_others(field, bars: np.ndarray) -> None:
    together = field(bars)
    for number in (1, 2, 3):
        alone = field((bars == number).astype(np.int64))
        known = (together != 0).any(axis=0) & (alone != 0).any(axis=0)
        assert known.sum() >= 0.98 * (bars == number).sum()
        cosine = (together * alone).sum(axis=0)[known]
        assert cosine.mean() > 0.999, "but for the number of steps of instances that are computed together"


@pytest.mark.parametrize("level", [0.0, 0.15, 0.3])
def test_the_instances_are_cellposes(labels: np.ndarray, level: float) -> None:
    torch.manual_seed(0)
    flow, mask = disturbed(heat_flow(labels), level), (labels > 0).astype(np.uint8)
    wanted, found = by_cellpose(flow, mask), instances_of_flow(flow, mask)
    assert found.max() == wanted.max()
    assert best_iou(wanted, found).mean() > 0.99


def test_long_cells_come_back_whole(bars: np.ndarray) -> None:
    found = instances_of_flow(heat_flow(bars), (bars > 0).astype(np.uint8))
    assert found.max() == 3 and best_iou(bars, found).min() > 0.95


def test_merged_trajectories_end_where_single_ones_do(labels: np.ndarray) -> None:
    mask = (labels > 0).astype(np.uint8)
    flow = heat_flow(labels)
    together = follow(flow, mask)
    some = np.flatnonzero(mask)[::97]
    alone = np.zeros_like(mask)
    alone.ravel()[some] = 1
    position = np.stack(np.nonzero(alone)).astype(float)
    padded = np.pad(flow * mask, ((0, 0), (1, 1), (1, 1)), mode="edge")
    for _ in range(200):
        position = np.clip(position + _bilinear(padded, position + 1), 0, np.array(mask.shape)[:, None] - 1)
    ends = together[:, np.isin(np.flatnonzero(mask), some)]
    assert np.quantile(np.abs(ends - position).max(axis=0), 0.95) < 1.5, "they swing around the middle"


def _bilinear(field: np.ndarray, at: np.ndarray) -> np.ndarray:
    y, x = np.floor(at).astype(int)
    dy, dx = at - np.floor(at)
    top = field[:, y, x] * (1 - dx) + field[:, y, x + 1] * dx
    return top * (1 - dy) + (field[:, y + 1, x] * (1 - dx) + field[:, y + 1, x + 1] * dx) * dy


def test_an_empty_mask_has_no_instances() -> None:
    empty = np.zeros((20, 30), np.uint8)
    assert not heat_flow(empty).any() and not distance_flow(empty).any()
    assert not instances_of_flow(np.zeros((2, 20, 30), np.float32), empty).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 3)])
def test_instances_of_any_size(shape: tuple[int, int]) -> None:
    whole = np.ones(shape, np.uint8)
    for field in (heat_flow, distance_flow):
        flow = field(whole)
        assert flow.shape == (2, *shape) and np.isfinite(flow).all()
        assert instances_of_flow(flow, whole).shape == shape
