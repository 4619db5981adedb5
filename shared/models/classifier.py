"""The classifier: a vision transformer, its pooled tokens, and a linear layer; how far an image is from the training's.

The distance of an image tells whether it is of another kind than the training images, which probabilities do not tell:
a network is often certain about what it never saw.
"""

import copy

import torch
from torch import Tensor, nn

from shared.models.backbones.packed_linear import pack_linear_layers
from shared.models.backbones.vit import Encoder
from shared.models.config import ClassifierConfig

STEM_CHANNELS = 24
"""Channels of the stem's first convolution; each further one has twice as many."""


class ConvolutionalStem(nn.Module):
    """Small convolutions down to the grid of patches, added to the patch embedding.

    Linear patches alone see little of objects smaller than a patch (Xiao et al. 2021, arXiv:2106.14881). The last layer
    starts at zero: a pretrained encoder starts unchanged.
    """

    def __init__(self, channels: int, width: int, patch: int) -> None:
        """patch: a power of two."""
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(patch.bit_length() - 1):
            wide = STEM_CHANNELS * 2**i
            layers += [nn.Conv2d(channels, wide, 3, stride=2, padding=1), nn.GroupNorm(STEM_CHANNELS // 3, wide)]
            layers += [nn.GELU()]
            channels = wide
        self.layers = nn.Sequential(*layers)
        self.proj = nn.Conv2d(channels, width, 1)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, H/patch * W/patch, width)."""
        return self.proj(self.layers(x)).flatten(2).transpose(1, 2)


class Classifier(nn.Module):
    """Images to logits of the classes."""

    embedding_mean: Tensor
    embedding_deviation: Tensor
    reference_mean: Tensor
    reference_whitening: Tensor

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        vit, channels = config.architecture.encoder, config.input.channels
        self.encoder = Encoder(config.encoder)
        self.stem = ConvolutionalStem(channels, vit.width, vit.patch) if config.architecture.stem else None
        width = config.embedding_width
        self.head = nn.Linear(width, len(config.architecture.classes))
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        for name in ("embedding_mean", "reference_mean"):
            self.register_buffer(name, torch.zeros(width))
        self.register_buffer("embedding_deviation", torch.ones(width))
        self.register_buffer("reference_whitening", torch.eye(width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32, normalised, H and W multiples of the patch -> logits (N, classes)."""
        return self.head(self.standardised(self.embedding(x)))

    def embedding(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> pooled tokens (N, embedding width)."""
        return self.pool(self.encoder.encode(self.embed(x), self.encoder.grid(x)))

    def embed(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> patch tokens (N, T, width) before the first block."""
        tokens = self.encoder.embed(x)
        return tokens if self.stem is None else tokens + self.stem(x)

    def pool(self, tokens: Tensor) -> Tensor:
        """Class token and patch tokens (N, 1 + T, width) -> (N, embedding width)."""
        pooling = self.config.architecture.pooling
        if pooling == "class_token":
            return tokens[:, 0]
        mean = tokens[:, 1:].mean(dim=1)
        return mean if pooling == "mean" else torch.cat([mean, tokens[:, 1:].amax(dim=1)], dim=1)

    def standardised(self, embedding: Tensor) -> Tensor:
        """Embedding (N, width) with mean 0 and deviation 1 over the training images before training.

        A linear layer learns badly from features of different scales, such as MAE's (He et al. 2022, A.1, uses batch
        normalisation there).
        """
        return (embedding - self.embedding_mean) / self.embedding_deviation

    def distance(self, embedding: Tensor) -> Tensor:
        """Mahalanobis distance (N,) of embeddings (N, width) from the training images'."""
        return (((embedding - self.reference_mean) @ self.reference_whitening) ** 2).mean(dim=1).sqrt()

    @torch.no_grad()
    def fit_standardisation(self, embedding: Tensor) -> None:
        """Fit `standardised` to embeddings (n, width) of training images before training."""
        self.embedding_mean.copy_(embedding.mean(dim=0))
        deviation = embedding.std(dim=0)
        self.embedding_deviation.copy_(deviation.clamp_min(1e-3 * float(deviation.mean()) + 1e-6))

    @torch.no_grad()
    def fit_reference(self, embedding: Tensor) -> None:
        """Fit `distance` to embeddings (n, width) of training images after training.

        The covariance is shrunk towards its diagonal, which a few images need; a Mahalanobis distance of them all would
        otherwise be the same.
        """
        x = embedding.double()
        self.reference_mean.copy_(x.mean(dim=0))
        covariance = torch.cov(x.T)
        shrinkage = max(0.05, min(1.0, x.shape[1] / x.shape[0]))
        diagonal = covariance.diagonal().clamp_min(1e-8)
        covariance = (1 - shrinkage) * covariance + shrinkage * torch.diag(diagonal)
        values, vectors = torch.linalg.eigh(covariance)
        self.reference_whitening.copy_(vectors * values.clamp_min(1e-9).rsqrt())


class ClassProbabilities(nn.Module):
    """A classifier with calibrated probabilities instead of logits, and the distance from the training images."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier, self.temperature = classifier, classifier.config.postprocessing.temperature

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) float32, normalised -> probabilities (N, classes), sum 1, and distances (N,)."""
        classifier = self.classifier
        embedding = classifier.embedding(image)
        logits = classifier.head(classifier.standardised(embedding))
        return torch.softmax(logits / self.temperature, dim=1), classifier.distance(embedding)


def inference_copy(classifier: Classifier, device: str) -> Classifier:
    """Copy a classifier to `device`, in evaluation mode; on a CPU pack its encoder's linear layers."""
    copied = copy.deepcopy(classifier).eval()
    if device == "cpu":
        copied.encoder = pack_linear_layers(copied.encoder)
    return copied.to(device)
