"""The classifier: probabilities, the distance from the training images, and its predictor."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from shared.imaging.normalise import Normalisation
from shared.models.class_predictor import ClassPredictor, network_input
from shared.models.classifier import REFERENCES, Classifier, ClassProbabilities, coarse_statistics
from shared.models.config import ClassifierConfig, ModelInput, VitArchitecture

VIT = VitArchitecture.preset("nano", 8)


def classifier(channels: int = 1, normalisation: Normalisation | None = None, **architecture) -> Classifier:
    """A classifier of random weights for three classes."""
    torch.manual_seed(0)
    config = ClassifierConfig(
        architecture={"encoder": VIT, "classes": ("a", "b", "c"), **architecture},
        input=ModelInput(channels=channels, crop_px=32, normalisation=normalisation or Normalisation()),
    )
    network = Classifier(config).eval()
    torch.nn.init.normal_(network.head.weight)
    return network


@pytest.mark.parametrize("pooling", ["mean", "mean_and_max", "class_token"])
def test_logits_are_linear_in_the_pooled_tokens(pooling: str) -> None:
    network, x = classifier(2, pooling=pooling), torch.randn(3, 2, 32, 32)
    with torch.no_grad():
        tokens = network.encoder.tokens(x)
        parts = {"mean": tokens[:, 1:].mean(1), "max": tokens[:, 1:].amax(1), "class_token": tokens[:, 0]}
        embedding = torch.cat([parts[name] for name in pooling.split("_and_")], dim=1)
        assert torch.allclose(network(x), network.head(embedding), atol=1e-6)
        network.fit_standardisation(embedding)
        standardised = network.standardised(network.embedding(x))
    assert torch.allclose(standardised.mean(dim=0), torch.zeros(()), atol=1e-4)
    assert torch.allclose(standardised.std(dim=0), torch.ones(()), atol=1e-2)


@pytest.mark.parametrize("patch", [4, 8, 16])
def test_a_new_stem_is_pooled_leaves_the_tokens_and_is_learned(patch: int) -> None:
    vit = VitArchitecture.preset("nano", patch)
    with_stem, without, x = classifier(encoder=vit, stem=True), classifier(encoder=vit), torch.randn(2, 1, 32, 32)
    shared = {name: value for name, value in with_stem.state_dict().items() if name in without.state_dict()}
    own = {name: value for name, value in shared.items() if value.shape == without.state_dict()[name].shape}
    without.load_state_dict(own, strict=False)
    tokens, details = without.embedding(x), with_stem.stem(x)
    assert torch.equal(with_stem.embedding(x)[:, : VIT.width], tokens)
    pooled = torch.cat([details.mean(dim=(2, 3)), details.amax(dim=(2, 3))], dim=1)
    assert torch.equal(with_stem.embedding(x)[:, VIT.width :], pooled)
    assert details.shape[2:] == (32 // patch, 32 // patch)
    with_stem(x).square().sum().backward()
    assert with_stem.stem is not None and with_stem.stem.proj.weight.grad is not None
    assert float(with_stem.stem.proj.weight.grad.abs().sum()) > 0


def test_logits_have_a_part_of_the_tokens_and_one_of_the_stem() -> None:
    network, x = classifier(stem=True), torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        of_tokens, rest = network.logits_of_parts(x)
        assert torch.allclose(of_tokens + rest, network(x), atol=1e-4)
        network.weigh_tokens(0.3)
        assert torch.allclose(network(x), 0.3 * of_tokens + rest, atol=1e-4)
        of_tokens, rest = (bare := classifier()).logits_of_parts(x)
        assert torch.allclose(of_tokens + bare.head.bias, bare(x), atol=1e-4) and torch.equal(rest[0], bare.head.bias)


def test_with_fixed_limits_images_also_have_a_contrast_of_their_own() -> None:
    """The encoder does not see gain and offset of an image, the stem does."""
    fixed, x = Normalisation(fixed=((0.0, 100.0), (0.0, 50.0))), torch.rand(5, 2, 32, 32)
    network = classifier(2, stem=True, normalisation=fixed)
    network.fit_contrast(x)
    with torch.no_grad():
        own = network.with_own_contrast(x)
        deviation, mean = torch.var_mean(own, dim=(0, 2, 3), correction=0)
        assert torch.allclose(mean, x.mean(dim=(0, 2, 3)), atol=1e-5)
        assert torch.allclose(deviation.sqrt(), x.std(dim=(2, 3), correction=0).mean(dim=0), rtol=1e-3)
        assert torch.allclose(network.with_own_contrast(0.4 * x + 0.3), own, atol=1e-3)
        assert torch.allclose(network.with_own_contrast(torch.full_like(x, 7)), network.image_mean[:, None, None])
        features, other = (network.embedding(one) for one in (x, 0.4 * x + 0.3))
        tokens = network.token_width
        assert torch.allclose(features[:, :tokens], other[:, :tokens], atol=1e-2)
        assert not torch.allclose(features[:, tokens:], other[:, tokens:], atol=1e-2)
    assert network.stem is not None and network.stem.layers[0].in_channels == 4
    assert not classifier(2, stem=True).own_contrast and not classifier(2, normalisation=fixed).own_contrast


def test_probabilities_are_the_softmax_at_the_temperature() -> None:
    network, x = classifier(), torch.randn(4, 1, 32, 32)
    network.config = network.config.model_copy(
        update={"postprocessing": network.config.postprocessing.model_copy(update={"temperature": 2.5})}
    )
    with torch.no_grad():
        probability, distance = ClassProbabilities(network)(x)
        assert torch.allclose(probability, (network(x) / 2.5).softmax(dim=1), atol=1e-6)
    assert probability.shape == (4, 3) and distance.shape == (4,)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_predictor_takes_images_of_any_size_and_depth(dtype: type) -> None:
    network, rng = classifier(3), np.random.default_rng(0)
    images = [(rng.random(shape) * 200).astype(dtype) for shape in ((50, 50, 3), (40, 90, 3), (32, 32, 3), (31, 33, 1))]
    found = ClassPredictor.of(network, "cpu", batch_size=3)(images)
    x = np.stack([network_input(image, network.config.input) for image in images]).transpose(0, 3, 1, 2)
    with torch.no_grad():
        probability, distance = ClassProbabilities(network)(torch.from_numpy(np.ascontiguousarray(x)))
    assert x.shape == (4, 3, 32, 32)
    assert found.probability == pytest.approx(probability.numpy(), abs=1e-5)
    assert found.distance == pytest.approx(distance.numpy(), rel=1e-4)
    assert found.probability.dtype == found.distance.dtype == np.float32
    none = ClassPredictor.of(network, "cpu")([])
    assert none.probability.shape == (0, 3) and none.distance.shape == (0,)


def test_an_input_without_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"states crop_px"):
        network_input(np.zeros((32, 32, 1)), ModelInput(channels=1))


def test_the_distance_is_that_to_the_nearest_training_image() -> None:
    """Against scikit-learn, on standardised features; of few images each is kept several times."""
    network, rng = classifier(2), np.random.default_rng(0)
    for count in (30, REFERENCES + 100):
        features = torch.from_numpy(rng.normal(3, 2, (count, len(network.feature_mean))).astype(np.float32))
        network.fit_reference(features)
        x = StandardScaler().fit_transform(features.numpy())
        kept = x[np.unique(np.linspace(0, count - 1, REFERENCES).round().astype(int))]
        new = rng.normal(3, 2, (50, x.shape[1]))
        scaled = (new - features.numpy().mean(axis=0)) / features.numpy().std(axis=0)
        nearest, _ = NearestNeighbors(n_neighbors=1).fit(kept).kneighbors(scaled)
        found = network.distance(torch.from_numpy(new.astype(np.float32))).numpy()
        assert found == pytest.approx(nearest[:, 0] / x.shape[1] ** 0.5, rel=1e-3)
        assert network.distance(features[:1]).item() < 0.02


def test_coarse_statistics_are_means_contrasts_and_gradients() -> None:
    x = torch.rand(2, 3, 32, 32)
    found = coarse_statistics(x).numpy()
    cells = x.numpy().reshape(2, 3, 4, 8, 4, 8)
    contrast = np.log(cells.var(axis=(3, 5)) + 1e-4)
    gradients = [np.log(np.abs(np.diff(x.numpy(), axis=axis)).mean(axis=(2, 3)) + 3e-3) for axis in (3, 2)]
    parts = [cells.mean(axis=(3, 5)).reshape(2, -1), contrast.reshape(2, -1), *gradients]
    assert found == pytest.approx(np.concatenate(parts, axis=1), rel=1e-3, abs=1e-4)
