"""A segmentor small enough to train within seconds, on real nuclei, for the tests of evaluate and infer."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from real_labels import wheel_nuclei

from shared.artifacts.image_set import ImageWriter
from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.artifacts.label_set import LabelWriter
from shared.artifacts.manifest import seal
from shared.instances.distance import instance_distance
from shared.models.backbones.vit import EncoderConfig
from shared.models.segmentor import DEPTH, FOREGROUND, Segmentor, SegmentorConfig, save_segmentor

CONFIG = SegmentorConfig(
    encoder=EncoderConfig.of("nano", patch=8, channels=1, crop=96), width=16, heads=(FOREGROUND, DEPTH)
)
STEPS, CROP = 40, 96


@cache
def trained() -> Segmentor:
    """Trained on the upper half of the wheel's nuclei, with their true foreground."""
    torch.set_num_threads(1)  # a loaded machine is much slower with more; the stages set their own
    torch.manual_seed(0)
    image, truth = wheel_nuclei()
    x = torch.from_numpy(CONFIG.encoder.normalisation(image[..., None])[:256, :, 0])
    y = torch.from_numpy(np.stack([truth[:256] > 0, instance_distance(truth[:256])]).astype(np.float32))
    segmentor, rng = Segmentor(CONFIG).train(), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(segmentor.parameters(), lr=2e-3)
    for _ in range(STEPS):
        places = [(int(rng.integers(256 - CROP)), int(rng.integers(512 - CROP))) for _ in range(4)]
        crops, targets = (torch.stack([p[..., a : a + CROP, b : b + CROP] for a, b in places]) for p in (x, y))
        loss = F.binary_cross_entropy_with_logits(segmentor(crops[:, None]), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return segmentor.eval()


def write_model(folder: Path) -> Path:
    """A Model artifact of the trained segmentor."""
    save_segmentor(folder, trained(), CONFIG, "# Small segmentor")
    seal(folder, Model)
    return folder


def write_images(folder: Path, images: dict[str, np.ndarray], um_per_px: dict[str, float] | None = None) -> Path:
    """An ImageSet artifact: key -> image (H, W, C)."""
    with ImageWriter(folder) as writer:
        for key in sorted(images):
            writer.add(key, images[key], source=f"{key}.tif", um_per_px=(um_per_px or {}).get(key))
    seal(folder, ImageSet)
    return folder


def write_truth(folder: Path, masks: dict[str, np.ndarray], kinds: dict[str, str] | None = None, **conf) -> Path:
    """A LabelSet artifact of origin truth: key -> label image; conf: key -> confidence."""
    with LabelWriter(folder, "truth") as writer:
        for key in sorted(masks):
            writer.add(key, masks[key], (kinds or {}).get(key, "instances"), conf=conf.get(key))
    seal(folder, LabelSet)
    return folder
