"""A classifier that trains within seconds on real nuclei, calibrated: does a crop show nuclei or background?"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from real_labels import wheel_nuclei

from shared.artifacts.kinds import Model
from shared.artifacts.manifest import seal
from shared.models.class_predictor import ClassPredictor, network_input
from shared.models.classifier import Classifier
from shared.models.config import ClassifierConfig, ModelInput, VitArchitecture
from shared.models.files import save_model

SIDE, STEPS, BATCH = 32, 100, 32
CLASSES = ("negative", "positive")
MIN_SHARE, MAX_SHARE = 0.35, 0.05
"""Share of nucleus pixels from which on a crop is positive, and up to which it is negative."""
CONFIG = ClassifierConfig(
    architecture={
        "encoder": VitArchitecture.preset("nano", 8).model_copy(update={"depth": 2}),
        "classes": CLASSES,
        "stem": True,
    },
    input=ModelInput(channels=1, crop_px=SIDE),
)


def crops(count: int, part: str, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """`count` crops (48, 48, 1) of a part of the image, and their classes (count,), half of each.

    Trained on are crops of `upper`, calibrated on `left`, the lower left; neither has seen `lower`, the lower right.
    """
    image, truth = wheel_nuclei()
    place = {"upper": np.s_[:256], "left": np.s_[256:, :256], "lower": np.s_[256:, 256:]}[part]
    image, mask, rng = image[place], truth[place] > 0, np.random.default_rng(seed)
    found: dict[int, list[np.ndarray]] = {0: [], 1: []}
    while min(map(len, found.values())) < (count + 1) // 2:
        y, x = (int(rng.integers(length - 48)) for length in image.shape)
        share = mask[y : y + 48, x : x + 48].mean()
        if share >= MIN_SHARE or share <= MAX_SHARE:
            found[int(share >= MIN_SHARE)].append(image[y : y + 48, x : x + 48, None])
    pairs = [(found[k][i], k) for i in range((count + 1) // 2) for k in (0, 1)][:count]
    return [crop for crop, _ in pairs], np.array([k for _, k in pairs])


@cache
def trained() -> Classifier:
    """Train on crops of the upper half; calibrate on others."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, truth = crops(400, "upper")
    x = torch.from_numpy(np.stack([network_input(image, CONFIG.input) for image in images]).transpose(0, 3, 1, 2))
    network, y = Classifier(CONFIG).train(), torch.from_numpy(truth)
    optimiser, rng = torch.optim.AdamW(network.parameters(), lr=1e-3), np.random.default_rng(0)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = 1e-3 * (1 - step / STEPS)  # the batch norms' statistics catch up
        batch = rng.integers(len(y), size=BATCH)
        loss = torch.nn.functional.cross_entropy(network(x[batch]), y[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        network.fit_reference(network.embedding_and_features(x)[1])
    return _calibrated(network)


def _calibrated(network: Classifier) -> Classifier:
    images, truth = crops(240, "left", seed=1)
    found = ClassPredictor.of(network, "cpu")(images)
    scores = [sorted(found.probability[truth == k, k].tolist()) for k in (0, 1)]
    settings = {"calibration": scores, "calibration_distances": sorted(found.distance.tolist())}
    network.config = ClassifierConfig.model_validate(CONFIG.model_dump() | {"postprocessing": settings})
    return network


def write_classifier(folder: Path, config: ClassifierConfig | None = None) -> Path:
    """A Model artifact of the trained classifier; `config` may differ in names and `postprocessing`."""
    network = trained()
    save_model(folder, network.state_dict(), config or network.config, "# Small classifier")
    seal(folder, Model)
    return folder
