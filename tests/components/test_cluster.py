"""cluster: what it finds on real images, that it repeats itself, and the parts it is made of."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from loop_artifacts import Data, dice, payload, real_data
from real_labels import ROOT, real_pairs, wheel_nuclei

from components.cluster import token_grid as grid
from components.cluster.cluster_selection import Halves, Tally
from components.cluster.clustering import fit, projection, squared_distances
from components.cluster.component import Cluster
from components.cluster.coreset_kmeans import AXES, LEAST, kmeans, nearest
from components.cluster.main import run
from shared.artifacts.feature_set import FeatureEntry, FeatureWriter
from shared.artifacts.kinds import FeatureSet, LabelSet
from shared.artifacts.label_set import LabelReader
from shared.artifacts.manifest import seal
from shared.proposals.otsu import UNIMODAL, otsu
from shared.proposals.proposal_selection import ProposalSelection
from shared.system.errors import UserError


def cluster(data: Data, name: str, **options):
    return run(
        Cluster(images=data.images, features=data.features, truth=data.truth, clusters=data.out(name), **options)
    )


@pytest.mark.parametrize(
    ("folder", "count", "kind", "least"),
    [
        ("dsb2018/fluo", 8, "intensity", 0.75),
        ("dsb2018/histo_purple", 4, "intensity of channel 2", 0.75),
        ("dsb2018/histo_light", 4, "intensity of channel 2", 0.65),
        ("dsb2018/gray_bright", 4, "intensity", 0.4),
        ("usiigaci/labelled", 3, "texture", 0.6),
    ],
)
def test_label_free_proposals_find_cells(folder, count, kind, least, tmp_path):
    data = real_data(tmp_path, folder, count)
    result = cluster(data, "clusters")
    assert data.dice("clusters") > least
    notes = LabelReader(tmp_path / "clusters").info.notes
    assert set(notes["proposals"]) == {kind}
    assert 0 < len(notes["foreground_clusters"]) < result.metrics["clusters"]
    assert all(np.isfinite(value) for value in result.metrics.values())
    assert "<img" in result.page.html()


def test_the_wheels_nuclei(tmp_path):
    data = Data(tmp_path, [wheel_nuclei()])
    cluster(data, "clusters")
    assert data.dice("clusters") > 0.8


def test_the_same_input_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    data = Data(tmp_path, [wheel_nuclei()])
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        cluster(data, name, seed=seed, k=60)  # of few clusters, every seed finds the same
    assert payload(tmp_path / "a") == payload(tmp_path / "b") != payload(tmp_path / "c")


def test_every_pixel_has_a_cluster(tmp_path):
    image, mask = wheel_nuclei()
    data = Data(tmp_path, [(image[:203, :307], mask[:203, :307])])
    cluster(data, "clusters", k=5, components=0, whitening=1.0)
    seal(tmp_path / "clusters", LabelSet)
    number = LabelReader(tmp_path / "clusters").plane("image0", "cluster")
    assert number.shape == (203, 307)
    assert set(np.unique(number)) == {1, 2, 3, 4, 5}


def test_few_labels_choose_at_least_as_well(tmp_path):
    data = real_data(tmp_path, "usiigaci/labelled", 3)
    cluster(data, "free")
    cluster(data, "labelled", use_labels=3)
    assert data.dice("labelled") >= data.dice("free") - 0.01


def test_few_label_mode_without_labels_says_so(tmp_path):
    data = Data(tmp_path, [wheel_nuclei()])
    data.truth = data.none
    with pytest.raises(UserError, match="use_labels"):
        cluster(data, "clusters", use_labels=2)


def test_the_models_probability_is_fused_in(tmp_path):
    image, mask = wheel_nuclei()
    model = np.random.default_rng(0).random(mask.shape).astype(np.float32)
    data = Data(tmp_path, [(image, mask)], [model])
    found = {}
    for name, weight in (("all", 1.0), ("half", 0.5), ("nothing", 0.0)):
        cluster(data, name, model_weight=weight)
        seal(tmp_path / name, LabelSet)
        found[name] = LabelReader(tmp_path / name).probability("image0")
    assert np.abs(found["all"] - model).max() < 0.005
    assert np.abs(found["half"] - (found["all"] + found["nothing"]) / 2).max() < 0.01


def test_converged_and_empty_pass_through(tmp_path):
    data = Data(tmp_path, [wheel_nuclei()])
    assert "converged" in cluster(data, "skipped", skip=True).skipped
    with FeatureWriter(tmp_path / "nothing"):
        pass
    seal(tmp_path / "nothing", FeatureSet)
    data.features = tmp_path / "nothing"
    assert cluster(data, "empty").skipped
    for name in ("skipped", "empty"):
        seal(tmp_path / name, LabelSet)
        assert len(LabelReader(tmp_path / name)) == 0


def test_features_of_other_images_are_refused(tmp_path):
    image, mask = wheel_nuclei()
    data, other = Data(tmp_path / "a", [(image, mask)]), Data(tmp_path / "b", [(image, mask), (image, mask)])
    data.features = other.features
    with pytest.raises(UserError, match="image1"):
        cluster(data, "clusters")


def test_constant_images_do_not_stop_it(tmp_path):
    flat = np.full((64, 64), 7, np.uint16)
    data = Data(tmp_path, [(flat, flat * 0)])
    cluster(data, "clusters")
    seal(tmp_path / "clusters", LabelSet)
    assert not LabelReader(tmp_path / "clusters").mask("image0").any()


def test_kmeans_is_as_good_as_scikit_learns():
    from sklearn.cluster import KMeans

    image, _ = wheel_nuclei()
    windows = np.lib.stride_tricks.sliding_window_view(image.astype(np.float32), (8, 8))[::8, ::8].reshape(-1, 64)
    found = fit(windows, k=8, components=0, whitening=0, seed=0)
    points = (windows - found.mean) @ found.basis
    inertia = squared_distances(points, found.centroids).min(axis=1).sum()
    assert inertia < 1.05 * KMeans(8, n_init=5, random_state=0).fit(windows).inertia_
    shares = found.assign(windows)
    np.testing.assert_allclose(shares.sum(axis=-1), 1, rtol=1e-5)
    assert (shares.argmax(axis=-1) == squared_distances(points, found.centroids).argmin(axis=1)).all()


def test_kmeans_on_more_points_than_are_sampled_is_as_good_and_the_same_every_time():
    """Patches of 8 x 8 px at every second pixel."""
    from sklearn.cluster import KMeans

    image, _ = wheel_nuclei()
    windows = np.lib.stride_tricks.sliding_window_view(image.astype(np.float32), (8, 8))[::2, ::2].reshape(-1, 64)
    points = np.ascontiguousarray(windows - windows.mean(axis=0))
    assert len(points) > LEAST and points.shape[1] > AXES
    centroids = kmeans(points, 16, 3)
    inertia = squared_distances(points, centroids).min(axis=1).sum()
    assert inertia < 1.01 * KMeans(16, n_init=1, max_iter=20, random_state=0).fit(points).inertia_
    assert np.array_equal(centroids, kmeans(points, 16, 3))
    assert (nearest(points, centroids) == squared_distances(points, centroids).argmin(axis=1)).mean() > 0.9999


def test_points_that_differ_in_few_values_each_have_their_centroid():
    points = np.repeat(np.eye(100, dtype=np.float32), 5, axis=0)
    centroids = kmeans(points, 100, 0)
    assert len(np.unique(centroids.round(3), axis=0)) == 100


def test_principal_components_agree_with_scikit_learn():
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    tokens = (rng.normal(size=(500, 12)) @ rng.normal(size=(12, 12)) + 3).astype(np.float32)
    mean, basis = projection(tokens, 4, 1.0)
    expected = PCA(4, whiten=True).fit_transform(tokens)
    np.testing.assert_allclose(np.abs((tokens - mean) @ basis), np.abs(expected), atol=2e-3)


def test_fewer_different_tokens_than_clusters():
    tokens = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    assert len(fit(tokens, k=12, components=2, whitening=0, seed=0)) == 3


def test_the_verdict_is_the_best_union_of_clusters():
    rng = np.random.default_rng(1)
    number = rng.integers(6, size=4000)
    reference = (rng.random(4000) < np.array([0.05, 0.2, 0.4, 0.45, 0.8, 0.95])[number]).astype(np.float32)
    tally = Tally(6)
    tally.add(np.eye(6)[number], reference)
    verdict = tally.judge()
    unions = [set(u) for n in range(1, 7) for u in itertools.combinations(range(6), n)]
    scores = [dice(np.isin(number, list(u)), reference) for u in unions]
    assert set(verdict.clusters()) == unions[int(np.argmax(scores))]
    assert verdict.dice == pytest.approx(max(scores))


@pytest.mark.parametrize("offset", [0, -4, 3])
def test_tokens_lie_where_their_pixels_are(offset):
    tokens = np.random.default_rng(0).random((6, 9)).astype(np.float32)
    plane = np.kron(tokens, np.ones((8, 8), np.float32))
    plane = np.pad(plane, ((max(offset, 0), 0), (max(offset, 0), 0)))[max(-offset, 0) :, max(-offset, 0) :]
    member = {"shard": "x", "row": 0, "stride": 8, "offset": offset}
    entry = FeatureEntry(key="a", grid=(6, 9), height=plane.shape[0], width=plane.shape[1], **member)
    inner = (slice(1, None), slice(1, None))
    np.testing.assert_allclose(grid.to_tokens(plane, entry)[inner], tokens[inner], atol=1e-5)
    number = np.arange(1, 55, dtype=np.uint8).reshape(6, 9)
    whole = np.kron(number, np.ones((8, 8), np.uint8))[max(-offset, 0) :, max(-offset, 0) :]
    found = grid.nearest(number, entry)[max(offset, 0) :, max(offset, 0) :]
    assert (found == whole).all()


def test_agreement_is_with_images_that_did_not_judge():
    """Clusters that mean the same in all images agree; a cluster for each image agrees with itself alone."""
    rng = np.random.default_rng(0)
    truth = (rng.random((6, 200)) < 0.3).astype(np.float32)
    same, memory = Halves(2), Halves(12)
    for number, reference in enumerate(truth):
        same.add(np.eye(2, dtype=np.float32)[reference.astype(int)], reference)
        memory.add(np.eye(12, dtype=np.float32)[2 * number + reference.astype(int)], reference)
    assert same.agreement() == same.whole().judge().dice == memory.whole().judge().dice == 1
    assert memory.agreement() == 0
    alone = Halves(2)
    alone.add(np.eye(2, dtype=np.float32)[truth[0].astype(int)], truth[0])
    assert alone.agreement() == 1


def test_of_several_numbers_of_clusters_the_one_that_agrees_is_taken(tmp_path):
    data = real_data(tmp_path, "usiigaci/labelled", 3)
    result = cluster(data, "clusters", k=0)
    assert result.metrics["clusters"] in (12, 24, 48)  # six are too few for phase contrast
    assert cluster(data, "six", k=6).metrics["cluster_dice"] < result.metrics["cluster_dice"]


def test_otsu_agrees_with_scikit_image_and_knows_the_normal_distribution():
    from skimage.filters import threshold_otsu

    image, _ = wheel_nuclei()
    values = np.minimum(image.astype(np.float32), np.percentile(image, 99))
    assert otsu(values).threshold == pytest.approx(threshold_otsu(values), rel=0.02)
    normal = np.random.default_rng(0).normal(size=200_000)
    assert otsu(normal).separability == pytest.approx(UNIMODAL, abs=0.01)


def test_dark_nuclei_are_found_as_well_as_bright_ones():
    image, mask = wheel_nuclei()
    for shown in (image, image.max() - image):
        choice = ProposalSelection.among([shown[..., None]])
        assert choice.taken()[0].kind != "texture"
        assert dice(choice.probability(shown[..., None]) > 0.5, mask) > 0.8


@pytest.mark.parametrize("folder, least", [("dsb2018/gray_bright", 0.4), ("dsb2018/histo_light", 0.75)])
def test_nuclei_in_stained_cells_are_told_from_the_cells(folder, least):
    pairs = [(image if image.ndim == 3 else image[..., None], mask) for image, mask in real_pairs(folder, 5)]
    choice = ProposalSelection.among(image for image, _ in pairs)
    assert np.mean([dice(choice.probability(image) > 0.5, mask) for image, mask in pairs]) > least


def test_the_most_bimodal_channel_is_thresholded():
    image, mask = wheel_nuclei()
    noise = np.random.default_rng(0).normal(1000, 300, (*image.shape, 2)).astype(np.float32)
    colour = np.concatenate([noise[..., :1], image[..., None].astype(np.float32), noise[..., 1:]], axis=-1)
    proposal = ProposalSelection.among([colour]).taken()[0]
    assert proposal.channel == 1
    assert dice(proposal.probability(colour) > 0.5, mask) > 0.8


def test_no_network_is_loaded():
    code = (
        "import sys, components.cluster.main, components.refine_masks.main; print({'torch', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
