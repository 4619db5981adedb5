"""The classifier: probabilities, the distance from the training images, and its predictor."""

import numpy as np
import pytest
import torch

from shared.models.class_predictor import ClassPredictor, network_input
from shared.models.classifier import Classifier, ClassProbabilities
from shared.models.config import ClassifierConfig, ModelInput, VitArchitecture

VIT = VitArchitecture.preset("nano", 8)


def classifier(channels: int = 1, **architecture) -> Classifier:
    """A classifier of random weights for three classes."""
    torch.manual_seed(0)
    config = ClassifierConfig(
        architecture={"encoder": VIT, "classes": ("a", "b", "c"), **architecture},
        input=ModelInput(channels=channels, crop_px=32),
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
def test_a_new_stem_changes_nothing_and_is_learned(patch: int) -> None:
    vit = VitArchitecture.preset("nano", patch)
    with_stem, without, x = classifier(encoder=vit, stem=True), classifier(encoder=vit), torch.randn(2, 1, 32, 32)
    without.load_state_dict({name: value for name, value in with_stem.state_dict().items() if "stem" not in name})
    assert torch.equal(with_stem(x), without(x))
    with_stem(x).square().sum().backward()
    assert with_stem.stem is not None and with_stem.stem.proj.weight.grad is not None
    assert float(with_stem.stem.proj.weight.grad.abs().sum()) > 0


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
