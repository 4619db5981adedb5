"""FeatureSets: tokens survive a round trip, and equal tokens give equal bytes."""

import numpy as np
import pytest

from shared.artifacts.feature_set import FeatureReader, FeatureWriter
from shared.artifacts.kinds import FeatureSet
from shared.artifacts.manifest import seal
from shared.system.errors import ArtifactError

RNG = np.random.default_rng(0)
SIZES = {"a": (3, 4), "a-b": (5, 2), "b": (1, 1), "c": (6, 6)}
TOKENS = {key: RNG.normal(size=(*grid, 8)) for key, grid in SIZES.items()}
PROBABILITY = RNG.random((48, 64)).astype(np.float32)


def write(folder, **options):
    with FeatureWriter(folder, **options) as writer:
        for key, tokens in TOKENS.items():
            probability = PROBABILITY if key == "a" else None
            size = (tokens.shape[0] * 16, tokens.shape[1] * 16)
            writer.add(key, tokens, stride=16, size=size, offset=-4, probability=probability)
    return folder


@pytest.mark.parametrize("shard_bytes", [2**28, 300, 1])
def test_tokens_survive_a_round_trip(tmp_path, shard_bytes):
    seal(write(tmp_path / "set", shard_bytes=shard_bytes), FeatureSet)
    reader = FeatureReader(tmp_path / "set")
    assert reader.keys() == sorted(TOKENS) and len(reader) == 4 and reader.channels == 8
    for key, tokens in TOKENS.items():
        entry = reader.entries[key]
        assert np.array_equal(reader.tokens(key), tokens.astype(np.float16))
        assert (entry.grid, entry.stride, entry.offset) == (SIZES[key], 16, -4)
        assert (entry.height, entry.width) == (SIZES[key][0] * 16, SIZES[key][1] * 16)
    assert len(list((tmp_path / "set").glob("features-*.npy"))) == {2**28: 1, 300: 3, 1: 4}[shard_bytes]


def test_probabilities_are_stored_to_a_255th(tmp_path):
    seal(write(tmp_path / "set"), FeatureSet)
    reader = FeatureReader(tmp_path / "set")
    assert np.abs(reader.probability("a") - PROBABILITY).max() <= 0.5 / 255 + 1e-6
    assert reader.probability("b") is None


def test_equal_tokens_have_equal_digests(tmp_path):
    assert seal(write(tmp_path / "x"), FeatureSet).digest == seal(write(tmp_path / "y"), FeatureSet).digest


def test_an_empty_set_is_readable(tmp_path):
    with FeatureWriter(tmp_path / "set"):
        pass
    seal(tmp_path / "set", FeatureSet, skipped="converged")
    reader = FeatureReader(tmp_path / "set")
    assert reader.keys() == [] and reader.channels == 0 and reader.skipped == "converged"


def test_a_shard_that_is_too_short_is_named(tmp_path):
    folder = write(tmp_path / "set")
    np.save(folder / "features-00000.npy", np.zeros((20, 8), np.float16))
    seal(folder, FeatureSet)
    reader = FeatureReader(folder)
    reader.tokens("a")
    with pytest.raises(ArtifactError, match="too short for image 'c'"):
        reader.tokens("c")


def test_pickles_are_not_loaded(tmp_path):
    folder = write(tmp_path / "set")
    np.save(folder / "features-00000.npy", np.array([print], dtype=object), allow_pickle=True)
    seal(folder, FeatureSet)
    with pytest.raises(ArtifactError, match=r"pickle|Python objects"):
        FeatureReader(folder).tokens("a")


@pytest.mark.parametrize("key", ["a", "a-b"])
def test_keys_ascend(tmp_path, key):
    with pytest.raises(ValueError, match="ascending"), FeatureWriter(tmp_path / "set") as writer:
        for name in ("a-b", key):
            writer.add(name, TOKENS["a"], stride=16, size=(48, 64))
    assert not (tmp_path / "set/index.jsonl").exists()
