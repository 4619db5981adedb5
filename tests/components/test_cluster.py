"""cluster: scores on real images, determinism, parameters, and its parts."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from loop_artifacts import Data, dice, payload, real_data
from real_labels import ROOT, real_pairs, wheel_nuclei

from components.cluster.cluster_selection import ClusterCounts, TwoFoldCounts
from components.cluster.clustering import fit_clusters, principal_axes, squared_distances
from components.cluster.component import Cluster
from components.cluster.coreset_kmeans import MAX_AXES, MIN_SAMPLE, kmeans, nearest_centroids
from components.cluster.main import run
from components.cluster.token_grid import numbers_to_pixels, pixels_to_tokens
from shared.artifacts.feature_set import FeatureEntry, FeatureWriter
from shared.artifacts.kinds import FeatureSet, LabelSet
from shared.artifacts.label_set import NOTE_FOREGROUND_CLUSTERS, NOTE_HAND_LABELLED, NOTE_PROPOSALS, LabelReader
from shared.artifacts.manifest import seal
from shared.proposals.proposal_selection import ProposalSelection
from shared.system.errors import UserError


def cluster(data: Data, name: str, **options):
    return run(
        Cluster(images=data.images, features=data.features, truth=data.truth, clusters=data.out(name), **options)
    )


@pytest.mark.parametrize(
    ("folder", "count", "kind", "minimum"),
    [
        ("dsb2018/fluo", 8, "intensity", 0.75),
        ("dsb2018/histo_purple", 4, "intensity of channel 2", 0.75),
        ("dsb2018/histo_light", 4, "intensity of channel 2", 0.65),
        ("dsb2018/gray_bright", 4, "intensity", 0.4),
        ("usiigaci/labelled", 3, "texture", 0.6),
    ],
)
def test_label_free_proposals_find_cells(folder, count, kind, minimum, tmp_path):
    data = real_data(tmp_path, folder, count)
    result = cluster(data, "clusters")
    assert data.dice("clusters") > minimum
    notes = LabelReader(tmp_path / "clusters").info.notes
    assert set(notes[NOTE_PROPOSALS]) == {kind}
    assert 0 < len(notes[NOTE_FOREGROUND_CLUSTERS]) < result.metrics["clusters"]
    assert all(np.isfinite(value) for value in result.metrics.values())
    assert "<img" in result.page.html()


def test_the_wheels_nuclei(tmp_path):
    data = Data(tmp_path, [wheel_nuclei()])
    cluster(data, "clusters")
    assert data.dice("clusters") > 0.8


def test_the_same_input_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    data = Data(tmp_path, [wheel_nuclei()])
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        cluster(data, name, seed=seed, k=60)  # with few clusters, every seed finds the same
    assert payload(tmp_path / "a") == payload(tmp_path / "b") != payload(tmp_path / "c")


@pytest.mark.parametrize("options", [{"pca_components": "all"}, {"pca_components": 1}])
def test_every_pixel_has_a_cluster(options, tmp_path):
    image, mask = wheel_nuclei()
    data = Data(tmp_path, [(image[:203, :307], mask[:203, :307])])
    cluster(data, "clusters", k=5, whitening=1.0, **options)
    seal(tmp_path / "clusters", LabelSet)
    number = LabelReader(tmp_path / "clusters").plane("image0", "cluster")
    assert number.shape == (203, 307)
    assert set(np.unique(number)) == {1, 2, 3, 4, 5}


def test_pca_components_all_is_another_space_than_some(tmp_path):
    """The features have 2 channels: with both, PCA is a rotation; without whitening the clusters are the same."""
    data = Data(tmp_path, [wheel_nuclei()])
    for name, components in (("all", "all"), ("two", 2), ("one", 1)):
        cluster(data, name, k=8, pca_components=components)
        seal(tmp_path / name, LabelSet)
    every, two, one = (LabelReader(tmp_path / name).plane("image0", "cluster") for name in ("all", "two", "one"))
    assert (every == two).mean() > 0.95 > (every == one).mean()


def test_few_labels_select_at_least_as_well(tmp_path):
    data = real_data(tmp_path, "usiigaci/labelled", 3)
    cluster(data, "free")
    cluster(data, "labelled", use_labels=2)
    assert data.dice("labelled") >= data.dice("free") - 0.01
    found = LabelReader(tmp_path / "labelled")
    known = found.info.notes[NOTE_HAND_LABELLED]
    assert len(known) == 2 and len(found) == 3
    assert all(np.array_equal(found.mask(key), data.masks[key]) for key in known)


def test_few_label_mode_without_labels_is_refused(tmp_path):
    data = Data(tmp_path, [wheel_nuclei()])
    data.truth = data.none
    with pytest.raises(UserError, match=r"^--use_labels: "):
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
    assert "EM loop has ended" in cluster(data, "skipped", skip=True).skipped
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
    with pytest.raises(UserError, match=r"^--features: image 'image1'"):
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
    found = fit_clusters(windows, k=8, pca_components=None, whitening=0, seed=0)
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
    assert len(points) > MIN_SAMPLE and points.shape[1] > MAX_AXES
    centroids = kmeans(points, 16, 3)
    inertia = squared_distances(points, centroids).min(axis=1).sum()
    assert inertia < 1.01 * KMeans(16, n_init=1, max_iter=20, random_state=0).fit(points).inertia_
    assert np.array_equal(centroids, kmeans(points, 16, 3))
    assert (nearest_centroids(points, centroids) == squared_distances(points, centroids).argmin(axis=1)).mean() > 0.9999


def test_points_that_differ_in_few_values_each_have_their_centroid():
    points = np.repeat(np.eye(100, dtype=np.float32), 5, axis=0)
    centroids = kmeans(points, 100, 0)
    assert len(np.unique(centroids.round(3), axis=0)) == 100


def test_principal_components_agree_with_scikit_learn():
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    tokens = (rng.normal(size=(500, 12)) @ rng.normal(size=(12, 12)) + 3).astype(np.float32)
    mean, basis = principal_axes(tokens, 4, 1.0)
    expected = PCA(4, whiten=True).fit_transform(tokens)
    np.testing.assert_allclose(np.abs((tokens - mean) @ basis), np.abs(expected), atol=2e-3)


def test_fewer_different_tokens_than_clusters():
    tokens = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    assert len(fit_clusters(tokens, k=12, pca_components=2, whitening=0, seed=0)) == 3


def test_the_selection_is_the_best_union_of_clusters():
    rng = np.random.default_rng(1)
    number = rng.integers(6, size=4000)
    reference = (rng.random(4000) < np.array([0.05, 0.2, 0.4, 0.45, 0.8, 0.95])[number]).astype(np.float32)
    counts = ClusterCounts(6)
    counts.add(np.eye(6)[number], reference)
    selection = counts.select()
    unions = [set(u) for n in range(1, 7) for u in itertools.combinations(range(6), n)]
    scores = [dice(np.isin(number, list(u)), reference) for u in unions]
    assert set(selection.foreground_clusters()) == unions[int(np.argmax(scores))]
    assert selection.dice == pytest.approx(max(scores))


@pytest.mark.parametrize("offset", [0, -4, 3])
def test_tokens_lie_where_their_pixels_are(offset):
    tokens = np.random.default_rng(0).random((6, 9)).astype(np.float32)
    plane = np.kron(tokens, np.ones((8, 8), np.float32))
    plane = np.pad(plane, ((max(offset, 0), 0), (max(offset, 0), 0)))[max(-offset, 0) :, max(-offset, 0) :]
    member = {"shard": "x", "row": 0, "stride": 8, "offset": offset}
    entry = FeatureEntry(key="a", grid=(6, 9), height=plane.shape[0], width=plane.shape[1], **member)
    inner = (slice(1, None), slice(1, None))
    np.testing.assert_allclose(pixels_to_tokens(plane, entry)[inner], tokens[inner], atol=1e-5)
    number = np.arange(1, 55, dtype=np.uint8).reshape(6, 9)
    whole = np.kron(number, np.ones((8, 8), np.uint8))[max(-offset, 0) :, max(-offset, 0) :]
    found = numbers_to_pixels(number, entry)[max(offset, 0) :, max(offset, 0) :]
    assert (found == whole).all()


def test_agreement_is_cross_validated():
    """Clusters that mean the same in all images agree; a cluster for each image agrees with itself alone."""
    rng = np.random.default_rng(0)
    truth = (rng.random((6, 200)) < 0.3).astype(np.float32)
    same, overfitted = TwoFoldCounts(2), TwoFoldCounts(12)
    for number, reference in enumerate(truth):
        same.add(np.eye(2, dtype=np.float32)[reference.astype(int)], reference)
        overfitted.add(np.eye(12, dtype=np.float32)[2 * number + reference.astype(int)], reference)
    assert same.cross_validated_dice() == same.total().select().dice == overfitted.total().select().dice == 1
    assert overfitted.cross_validated_dice() == 0
    alone = TwoFoldCounts(2)
    alone.add(np.eye(2, dtype=np.float32)[truth[0].astype(int)], truth[0])
    assert alone.cross_validated_dice() == 1


def test_k_auto_takes_the_number_of_clusters_that_agrees(tmp_path):
    data = real_data(tmp_path, "usiigaci/labelled", 3)
    result = cluster(data, "clusters", k="auto")
    assert result.metrics["clusters"] in (12, 24, 48)  # six are too few for phase contrast
    assert cluster(data, "six", k=6).metrics["cluster_dice"] < result.metrics["cluster_dice"]


def test_dark_nuclei_are_found_as_well_as_bright_ones():
    image, mask = wheel_nuclei()
    for shown in (image, image.max() - image):
        selection = ProposalSelection.fit([shown[..., None]])
        assert selection.fitted()[0].kind != "texture"
        assert dice(selection.probability(shown[..., None]) > 0.5, mask) > 0.8


@pytest.mark.parametrize("folder, minimum", [("dsb2018/gray_bright", 0.4), ("dsb2018/histo_light", 0.75)])
def test_nuclei_are_separated_from_stained_cytoplasm(folder, minimum):
    pairs = [(image if image.ndim == 3 else image[..., None], mask) for image, mask in real_pairs(folder, 5)]
    selection = ProposalSelection.fit(image for image, _ in pairs)
    assert np.mean([dice(selection.probability(image) > 0.5, mask) for image, mask in pairs]) > minimum


def test_the_most_bimodal_channel_is_thresholded():
    image, mask = wheel_nuclei()
    noise = np.random.default_rng(0).normal(1000, 300, (*image.shape, 2)).astype(np.float32)
    colour = np.concatenate([noise[..., :1], image[..., None].astype(np.float32), noise[..., 1:]], axis=-1)
    proposal = ProposalSelection.fit([colour]).fitted()[0]
    assert proposal.channel == 1
    assert dice(proposal.probability(colour) > 0.5, mask) > 0.8


def test_no_network_is_loaded():
    code = (
        "import sys, components.cluster.main, components.refine_masks.main; print({'torch', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
