"""A segmentor that trains within seconds on real nuclei, for the tests of stages that apply one."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from real_labels import wheel_nuclei

from shared.artifacts.image_set import ImageWriter
from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.artifacts.label_set import LabelWriter
from shared.artifacts.manifest import seal
from shared.models.backbones.vit import Encoder
from shared.models.config import ModelInput, SegmentorArchitecture, SegmentorConfig, VitArchitecture
from shared.models.files import save_model
from shared.models.segmentor import Segmentor
from shared.models.tiled_inference import TiledPredictor
from shared.targets.foreground_distance import encode

STEPS, CROP = 40, 96
CONFIG = SegmentorConfig(
    architecture=SegmentorArchitecture(encoder=VitArchitecture.preset("nano", 8), width=16),
    input=ModelInput(channels=1, crop_px=CROP),
)


@cache
def trained() -> Segmentor:
    """Train on the upper half of the wheel's nuclei, with their true foreground and distance."""
    torch.set_num_threads(1)  # a loaded machine is much slower with more; the stages set their own
    torch.manual_seed(0)
    image, truth = wheel_nuclei()
    x = torch.from_numpy(CONFIG.input.normalisation(image[..., None])[:256, :, 0])
    planes = encode(truth[:256], np.full((256, 512), 255, np.uint8), "instances").astype(np.float32)
    y = torch.from_numpy(np.stack([planes[..., 0], planes[..., 2] / 255]))
    segmentor, rng = Segmentor(CONFIG).train(), np.random.default_rng(0)
    optimiser = torch.optim.AdamW(segmentor.parameters(), lr=2e-3)
    for _ in range(STEPS):
        places = [(int(rng.integers(256 - CROP)), int(rng.integers(512 - CROP))) for _ in range(4)]
        crops, targets = (torch.stack([p[..., a : a + CROP, b : b + CROP] for a, b in places]) for p in (x, y))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(segmentor(crops[:, None]), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return segmentor.eval()


def write_model(folder: Path, config: SegmentorConfig = CONFIG) -> Path:
    """A Model artifact of the trained segmentor; `config` may differ in `input` and `postprocessing`."""
    save_model(folder, trained().state_dict(), config, "# Small segmentor")
    seal(folder, Model)
    return folder


def write_encoder(folder: Path) -> Path:
    """A Model artifact of an encoder of random weights."""
    save_model(folder, Encoder(CONFIG.encoder).state_dict(), CONFIG.encoder, "# Encoder")
    seal(folder, Model)
    return folder


def predict_maps(image: np.ndarray, segmentor: Segmentor | None = None, tile: int = 128) -> np.ndarray:
    """Maps (2, H, W) float32 in [0, 1] of an image (H, W, C), by the trained segmentor unless another is given."""
    return TiledPredictor.of(segmentor or trained(), "cpu", tile=tile, batch_size=4)(image)


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
