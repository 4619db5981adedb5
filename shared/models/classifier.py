"""The classifier: a vision transformer and a small ConvNet, a linear layer; how far an image is from the training's.

The linear layer sees the pooled tokens of the transformer and the pooled map of the ConvNet, the stem. Its logits are
the sum of a part of the tokens and a part of the stem.

The distance of an image tells whether it is of another kind than the training images, which probabilities do not tell:
a network is often certain about what it never saw. It is that to the nearest training image (Sun et al. 2022,
arXiv:2204.06507), in features of an early block, which training for the classes changes little, and in coarse
statistics of the image (RESULTS.md, "Constants").
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.models.backbones.packed_linear import pack_linear_layers
from shared.models.backbones.vit import Encoder
from shared.models.config import ClassifierConfig

STEM_CHANNELS = 32, 128
"""Channels of the stem's first convolution, and at most; each further one has twice as many."""
REFERENCES = 1024
"""Training images that are kept for the distance."""
MIN_VARIANCE = 1e-5
"""What is added to the variance of an image, so that a constant one has none."""
CELLS = 4
"""Rows and columns of cells in `coarse_statistics`."""


class ConvolutionalStem(nn.Module):
    """A small ConvNet down to the grid of patches, for details smaller than a patch (RESULTS.md, "Constants").

    Its map is pooled beside the tokens, and added to the patch embedding (cf. Xiao et al. 2021, arXiv:2106.14881). The
    layer that adds it starts at zero: a pretrained encoder starts unchanged. It has batch
    norms: with group norms, which see the contrasts of one image alone, it learns several times as slowly.
    """

    def __init__(self, channels: int, width: int, patch: int) -> None:
        """patch: a power of two; width: of the tokens."""
        super().__init__()
        layers: list[nn.Module] = []
        for stage in range(patch.bit_length() - 1):
            wide = min(STEM_CHANNELS[0] * 2**stage, STEM_CHANNELS[1])
            layers += [nn.Conv2d(channels, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            channels = wide
        self.layers, self.channels = nn.Sequential(*layers), channels
        self.proj = nn.Conv2d(channels, width, 1)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> map (N, channels, H/patch, W/patch)."""
        return self.layers(x)

    def tokens(self, features: Tensor) -> Tensor:
        """Map (N, channels, rows, columns) -> what is added to the patch embedding (N, rows * columns, width)."""
        return self.proj(features).flatten(2).transpose(1, 2)


class Classifier(nn.Module):
    """Images to logits of the classes."""

    embedding_mean: Tensor
    embedding_deviation: Tensor
    feature_mean: Tensor
    feature_deviation: Tensor
    reference: Tensor
    image_mean: Tensor
    image_deviation: Tensor

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        vit, channels = config.architecture.encoder, config.input.channels
        self.encoder = Encoder(config.encoder)
        self.own_contrast = config.architecture.stem and bool(config.input.normalisation.fixed)
        """Whether the network sees every image with a contrast of its own as well, see `with_own_contrast`."""
        seen = 2 * channels if self.own_contrast else channels
        self.stem = ConvolutionalStem(seen, vit.width, vit.patch) if config.architecture.stem else None
        self.token_width = vit.width * (2 if config.architecture.pooling == "mean_and_max" else 1)
        """Features of the embedding that come from the tokens; the rest comes from the stem."""
        width = self.token_width + (2 * self.stem.channels if self.stem else 0)
        self.head = nn.Linear(width, len(config.architecture.classes))
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.early_block = max(1, round(vit.depth / 3))
        """Block whose mean token is compared with the training images'."""
        features = vit.width + channels * (2 * CELLS**2 + 2)
        for name, size in (("embedding", width), ("feature", features)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_deviation", torch.ones(size))
        for name, values in (("mean", torch.zeros(channels)), ("deviation", torch.ones(channels))):
            self.register_buffer(f"image_{name}", values)
        self.register_buffer("reference", torch.zeros(REFERENCES, features))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32, normalised, H and W multiples of the patch -> logits (N, classes)."""
        return self.head(self.standardised(self.embedding(x)))

    def logits_of_parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) -> parts of the logits (N, classes): of the tokens, and of the stem with the bias."""
        embedding, weight = self.standardised(self.embedding(x)), self.head.weight
        of_tokens = embedding[:, : self.token_width] @ weight[:, : self.token_width].T
        rest = embedding[:, self.token_width :] @ weight[:, self.token_width :].T
        return of_tokens, rest + self.head.bias

    @torch.no_grad()
    def weigh_tokens(self, factor: float) -> None:
        """Multiply the tokens' part of the logits."""
        self.head.weight[:, : self.token_width] *= factor

    def embedding(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) -> pooled tokens, and the stem's map pooled (N, embedding width)."""
        return self.embedding_and_features(x)[0]

    def embedding_and_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) -> pooled tokens (N, embedding width), and what `distance` compares (N, features)."""
        encoder, early = self.encoder, x
        own = self.with_own_contrast(x) if self.own_contrast else x
        details = None if self.stem is None else self.stem(torch.cat([own, x], dim=1) if self.own_contrast else x)
        tokens, cos_sin = encoder.prepend_special_tokens(self.embed(own, details)), encoder.rotations(encoder.grid(x))
        for number, block in enumerate(encoder.blocks, 1):
            tokens = block(tokens, cos_sin)
            if number == self.early_block:
                early = tokens[:, 1 + encoder.architecture.registers :].mean(dim=1)
        pooled = [self.pool(encoder.drop_registers(encoder.norm(tokens)))]
        if details is not None:
            pooled += [details.mean(dim=(2, 3)), details.amax(dim=(2, 3))]
        return torch.cat(pooled, dim=1), torch.cat([early, coarse_statistics(x)], dim=1)

    def with_own_contrast(self, x: Tensor) -> Tensor:
        """Give every channel of images (N, C, H, W) the mean and deviation of the training images: (N, C, H, W).

        Brightness and contrast of an image are lost by that (instance normalisation, Ulyanov et al. 2016,
        arXiv:1607.08022). The encoder sees these images alone, which are like those of its pretraining; the stem sees
        both (RESULTS.md, "Constants").
        """
        deviation, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        standard = (x - mean) / (deviation + MIN_VARIANCE).sqrt()
        return standard * self.image_deviation[:, None, None] + self.image_mean[:, None, None]

    def embed(self, x: Tensor, details: Tensor | None) -> Tensor:
        """Images (N, C, H, W) and the stem's map of them -> patch tokens (N, T, width) before the first block.

        Gradients of the tokens do not reach the stem's map.
        """
        tokens = self.encoder.embed(x)
        return tokens if self.stem is None or details is None else tokens + self.stem.tokens(details.detach())

    def pool(self, tokens: Tensor) -> Tensor:
        """Class token and patch tokens (N, 1 + T, width) -> (N, width), or twice the width for mean_and_max."""
        pooling = self.config.architecture.pooling
        if pooling == "class_token":
            return tokens[:, 0]
        mean = tokens[:, 1:].mean(dim=1)
        return mean if pooling == "mean" else torch.cat([mean, tokens[:, 1:].amax(dim=1)], dim=1)

    def standardised(self, embedding: Tensor) -> Tensor:
        """Embedding (N, width), of which the tokens' part has mean 0 and deviation 1 over the training images at first.

        A linear layer learns badly from features of different scales, such as MAE's (He et al. 2022, A.1, uses batch
        normalisation there).
        """
        return (embedding - self.embedding_mean) / self.embedding_deviation

    def distance(self, features: Tensor) -> Tensor:
        """Distance (N,) of images with these features (N, D) from the nearest training image, see `fit_reference`."""
        x = (features - self.feature_mean) / self.feature_deviation
        squared = x.square().sum(dim=1, keepdim=True) + self.reference.square().sum(dim=1) - 2 * x @ self.reference.T
        return (squared.amin(dim=1).clamp_min(0) / x.shape[1]).sqrt()

    @torch.no_grad()
    def fit_standardisation(self, embedding: Tensor) -> None:
        """Fit `standardised` to embeddings (n, width) of training images before training.

        The stem's part is left as it is: batch norms have no statistics of a network that is not trained.
        """
        tokens = slice(0, self.token_width)
        deviation = embedding[:, tokens].std(dim=0)
        self.embedding_mean[tokens] = embedding[:, tokens].mean(dim=0)
        self.embedding_deviation[tokens] = deviation.clamp_min(1e-3 * float(deviation.mean()) + 1e-6)

    @torch.no_grad()
    def fit_contrast(self, images: Tensor) -> None:
        """Fit `with_own_contrast` to training images (n, C, H, W)."""
        deviation, mean = torch.var_mean(images, dim=(2, 3), correction=0)
        self.image_mean.copy_(mean.mean(dim=0))
        self.image_deviation.copy_(deviation.sqrt().mean(dim=0))

    @torch.no_grad()
    def fit_reference(self, features: Tensor) -> None:
        """Fit `distance` to the features (n, D) of training images after training: up to REFERENCES are kept.

        Each feature has mean 0 and deviation 1 over these images; the distance is the root mean square difference.
        """
        self.feature_mean.copy_(features.mean(dim=0))
        self.feature_deviation.copy_(features.std(dim=0, correction=0).clamp_min(1e-4))
        rows = torch.linspace(0, len(features) - 1, REFERENCES).round().long()  # of a few images each several times
        self.reference.copy_((features[rows] - self.feature_mean) / self.feature_deviation)


def coarse_statistics(x: Tensor) -> Tensor:
    """Mean and contrast in each of 4 x 4 cells, and gradients: images (N, C, S, S) -> (N, C * 34).

    Contrast and gradients are logarithms. Intensities, unlike an embedding, hardly depend on what a network learned.
    """
    cell = x.shape[-1] // CELLS
    mean, square = (F.avg_pool2d(part, cell)[..., :CELLS, :CELLS] for part in (x, x.square()))
    contrast = ((square - mean.square()).clamp_min(0) + 1e-4).log()
    right, down = (x[..., 1:] - x[..., :-1]).abs(), (x[..., 1:, :] - x[..., :-1, :]).abs()
    gradients = [(change.mean(dim=(2, 3)) + 3e-3).log() for change in (right, down)]
    return torch.cat([mean.flatten(1), contrast.flatten(1), *gradients], dim=1)


class ClassProbabilities(nn.Module):
    """A classifier with calibrated probabilities instead of logits, and the distance from the training images."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier, self.temperature = classifier, classifier.config.postprocessing.temperature

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) float32, normalised -> probabilities (N, classes), sum 1, and distances (N,)."""
        classifier = self.classifier
        embedding, features = classifier.embedding_and_features(image)
        logits = classifier.head(classifier.standardised(embedding))
        return torch.softmax(logits / self.temperature, dim=1), classifier.distance(features)


def inference_copy(classifier: Classifier, device: str) -> Classifier:
    """Copy a classifier to `device`, in evaluation mode; on a CPU pack its encoder's linear layers."""
    copied = copy.deepcopy(classifier).eval()
    if device == "cpu":
        copied.encoder = pack_linear_layers(copied.encoder)
    return copied.to(device)
