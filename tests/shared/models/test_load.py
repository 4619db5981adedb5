"""Model artifacts: written and loaded, and what is wrong with a damaged one."""

import json
from pathlib import Path

import pytest
import torch
from loop_artifacts import payload
from pydantic import BaseModel, TypeAdapter
from safetensors import safe_open

from shared.models.backbones.vit import Encoder
from shared.models.config import (
    ClassifierConfig,
    DetectorArchitecture,
    DetectorConfig,
    EncoderConfig,
    ModelConfig,
    ModelInput,
    SegmentorConfig,
    VitArchitecture,
)
from shared.models.files import load_config, load_state, save_config, save_model
from shared.models.load import NETWORKS, fewest_parameters, load_model
from shared.models.segmentor import Segmentor
from shared.system.errors import ArtifactError

VIT = VitArchitecture.preset("nano", 8)
CONFIGS = {
    "encoder": EncoderConfig(architecture=VIT, input=ModelInput(channels=2, um_per_px=0.65, crop_px=32)),
    "segmentor": SegmentorConfig(architecture={"encoder": VIT, "width": 16}, input=ModelInput(channels=2)),
    "classifier": ClassifierConfig(
        architecture={"encoder": VIT, "classes": ("negative", "positive")}, input=ModelInput(channels=2, crop_px=32)
    ),
    "detector": DetectorConfig(
        architecture=DetectorArchitecture.preset("small", VIT, ("cell",), queries=10), input=ModelInput(channels=2)
    ),
}


def write(folder: Path, kind: str) -> torch.nn.Module:
    """A model of this kind with random weights, and its network."""
    torch.manual_seed(0)
    network = NETWORKS[type(CONFIGS[kind])](CONFIGS[kind]).eval()
    save_model(folder, network.state_dict(), CONFIGS[kind], "# A model")
    return network


def change(folder: Path, *path: str, **fields) -> None:
    """Set fields of the object at `path` in config.json."""
    config = json.loads((folder / "config.json").read_text())
    part = config
    for name in path:
        part = part[name]
    part |= fields
    (folder / "config.json").write_text(json.dumps(config))


def test_every_kind_of_the_union_has_a_network() -> None:
    union = TypeAdapter(ModelConfig).core_schema["choices"]
    with_network = sorted(config.model_fields["kind"].default for config in NETWORKS)
    assert sorted({*union} - {"absent"}) == with_network == sorted(CONFIGS)


@pytest.mark.parametrize("kind", CONFIGS)
def test_saved_and_loaded_is_the_same(tmp_path: Path, kind: str) -> None:
    network, x = write(tmp_path / "a", kind), torch.randn(1, 2, 32, 32)
    write(tmp_path / "b", kind)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["MODEL_CARD.md", "config.json", "model.safetensors"]
    assert payload(tmp_path / "a") == payload(tmp_path / "b")
    with safe_open(tmp_path / "a/model.safetensors", "pt") as file:
        assert not file.metadata()
    loaded = load_model(tmp_path / "a", type(network))
    assert loaded.config == CONFIGS[kind] == load_config(tmp_path / "a", type(CONFIGS[kind]))
    assert not loaded.training
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), network(x), rtol=0, atol=0)
    assert len({path.stat().st_mode for path in (tmp_path / "a").iterdir()}) == 1, "readable for the same people"


@pytest.mark.parametrize("kind", CONFIGS)
def test_one_of_several_kinds_is_loaded_as_what_it_is(tmp_path: Path, kind: str) -> None:
    write(tmp_path, kind)
    assert load_model(tmp_path, *NETWORKS.values()).config == CONFIGS[kind]
    assert load_config(tmp_path, *reversed(NETWORKS)) == CONFIGS[kind]


class OtherConfig(BaseModel):
    kind: str = "other"


def test_other_kinds_are_refused_by_name(tmp_path: Path) -> None:
    for kind in CONFIGS:
        write(tmp_path / kind, kind)
    with pytest.raises(ArtifactError, match=r"segmentor: a model of kind 'segmentor'; give one of kind 'encoder'"):
        load_model(tmp_path / "segmentor", Encoder)
    with pytest.raises(ArtifactError, match=r"kind 'encoder'; give one of kind 'segmentor'"):
        load_config(tmp_path / "encoder", SegmentorConfig)
    save_model(tmp_path / "other", {"w": torch.zeros(2)}, OtherConfig(), "# Other")
    assert torch.equal(load_state(tmp_path / "other")["w"], torch.zeros(2))
    with pytest.raises(ArtifactError, match=r"kind 'other'; give one of kind 'encoder' or 'segmentor'"):
        load_model(tmp_path / "other", Encoder, Segmentor)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"config\.json: No such file"),
        ("{", "not valid JSON"),
        ("[]", "the kind of the model is missing"),
        ('{"kind": 3}', "the kind of the model is missing"),
    ],
)
def test_a_config_that_cannot_be_read_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ArtifactError, match=message):
        load_config(tmp_path, EncoderConfig)


def test_a_wrong_field_is_named(tmp_path: Path) -> None:
    write(tmp_path, "segmentor")
    change(tmp_path, "architecture", "encoder", depth=-1)
    with pytest.raises(ArtifactError, match=r"config\.json: architecture\.encoder\.depth: .*create the model again"):
        load_model(tmp_path, Segmentor)
    change(tmp_path, "architecture", "encoder", depth=6)
    change(tmp_path, "postprocessing", merge_treshold=0.5)
    with pytest.raises(ArtifactError, match=r"postprocessing\.merge_treshold: Extra inputs are not permitted"):
        load_model(tmp_path, Segmentor)


def test_weights_that_do_not_match_are_named(tmp_path: Path) -> None:
    write(tmp_path, "encoder")
    change(tmp_path, "architecture", depth=5)
    with pytest.raises(ArtifactError, match=r"weights do not match.*blocks\.5"):
        load_model(tmp_path, Encoder)
    write(tmp_path, "segmentor")
    save_config(tmp_path, CONFIGS["segmentor"].model_copy(update={"input": ModelInput(channels=3)}))
    with pytest.raises(ArtifactError, match="weights do not match"):
        load_model(tmp_path, Segmentor)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    write(tmp_path, "encoder")
    data = (tmp_path / "model.safetensors").read_bytes()
    for damaged in (data[: len(data) // 2], b"\x80\x04torch"):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(ArtifactError, match="not a readable safetensors"):
            load_model(tmp_path, Encoder)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"model\.safetensors: no such file"):
        load_model(tmp_path, Encoder)


HUGE = [
    ("encoder", ["architecture"], {"depth": 10**9}),
    ("encoder", ["architecture"], {"width": 10**9}),
    ("encoder", ["architecture"], {"position_grid": 10**6}),
    ("encoder", ["architecture"], {"registers": 10**12}),
    ("encoder", ["architecture"], {"patch": 10**6}),
    ("encoder", ["input"], {"channels": 10**12}),
    ("segmentor", ["architecture"], {"width": 10**7}),
    ("segmentor", ["architecture", "encoder"], {"depth": 10**9}),
    ("classifier", ["architecture"], {"classes": [str(i) for i in range(100_000)]}),
    ("detector", ["architecture"], {"decoder_layers": 10**9}),
    ("detector", ["architecture"], {"width": 10**6}),
    ("detector", ["architecture"], {"expansion": 1e300}),
    ("detector", ["architecture"], {"feed_forward": 10**12}),
]


@pytest.mark.parametrize(("kind", "path", "fields"), HUGE)
def test_a_config_larger_than_its_weights_is_refused_before_anything_is_built(tmp_path, kind, path, fields) -> None:
    network = write(tmp_path, kind)
    assert fewest_parameters(CONFIGS[kind]) <= sum(parameter.numel() for parameter in network.parameters())
    change(tmp_path, *path, **fields)
    with pytest.raises(ArtifactError, match=r"config\.json: describes a network of .* use the files of one model"):
        load_model(tmp_path, type(network))


@pytest.mark.parametrize("fields", [{"heads": 7}, {"heads": 10**9}, {"patch": 7}])
def test_an_impossible_network_is_named(tmp_path, fields) -> None:
    write(tmp_path, "encoder")
    change(tmp_path, "architecture", **fields)
    with pytest.raises(ArtifactError, match=r"no multiple of the number of heads|weights do not match"):
        load_model(tmp_path, Encoder)
