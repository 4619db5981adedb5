"""An image whose objects are far larger than in training is predicted without its glow, if smaller ones stand out."""

from real_labels import real_pair
from small_segmentor import CONFIG, write_images, write_model

from components.infer.component import Infer
from components.infer.main import run
from shared.artifacts.kinds import LabelSet
from shared.artifacts.label_set import LabelReader
from shared.artifacts.manifest import seal
from shared.metrics.tally import tally

GLOWING, LARGE = "ddf1bf458312", "538b7673d507"
"""Tissue whose nuclei stand out from its glow; an embryo whose nuclei this segmentor does not find without it."""


def test_nuclei_in_tissue_that_glows_are_found(tmp_path):
    pairs = {name: real_pair("dsb2018/fluo", name) for name in (GLOWING, LARGE)}
    images = write_images(tmp_path / "images", {name: image[..., None] for name, (image, _) in sorted(pairs.items())})
    dice = {}
    for object_px in (None, 15.0):
        config = CONFIG.model_copy(update={"input": CONFIG.input.model_copy(update={"object_px": object_px})})
        out = tmp_path / str(object_px)
        for name in ("predictions", "files"):
            (out / name).mkdir(parents=True)
        model = write_model(tmp_path / f"model-{object_px}", config)
        run(Infer(images=images, segmentor=model, predictions=out / "predictions", files=out / "files", formats=[]))
        seal(out / "predictions", LabelSet)
        found = LabelReader(out / "predictions")
        for name, (_, labels) in pairs.items():
            dice[name, object_px] = tally(labels, found.mask(name)).metrics()["dice"]
    assert dice[GLOWING, None] < 0.2 and dice[GLOWING, 15.0] > 0.6
    assert dice[LARGE, None] == dice[LARGE, 15.0], "what is found without the glow is not of the training's size"
