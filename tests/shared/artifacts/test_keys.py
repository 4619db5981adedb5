"""Keys made from paths, and the choice of a few that stand for many."""

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pytest

from shared.artifacts.keys import MAX_KEY_LENGTH, assign_keys, evenly_spaced, frame_key, key_of

AWKWARD = [
    "a.png",
    "a.tif",
    "b/a.png",
    "b__a.png",
    "b_/a.png",
    "b/_a.png",
    "b_a.png",
    "b a.png",
    "b-a.png",
    "b.a.png",
    "b.b.png",
    "x.ome.tif",
    "x.tif",
    "Zellen/Größe µ 1.png",
    "日本/細胞.png",
    "日本/細砲.png",
    "-.png",
    "_.png",
    "l" * 100 + ".png",
    "l" * 101 + ".png",
    "/".join(["deep"] * 30) + "/a.png",
]


@dataclass
class Image:
    relative: PurePosixPath
    key: str = ""


def keys_of(*names: str) -> list[str]:
    images = [Image(PurePosixPath(name)) for name in names]
    assign_keys(images)
    return [image.key for image in images]


def test_no_two_files_share_a_key():
    keys = keys_of(*AWKWARD)
    assert len(set(keys)) == len(AWKWARD)
    for key in keys:
        assert len(key) <= MAX_KEY_LENGTH and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", key)


def test_a_key_depends_on_no_other_file():
    assert keys_of("b a.png") == [keys_of(*AWKWARD)[AWKWARD.index("b a.png")]]


def test_names_that_are_not_utf8():
    keys = keys_of(os.fsdecode(b"a\xff.png"), os.fsdecode(b"a\xfe.png"))
    assert len(set(keys)) == 2 and all(key.isascii() for key in keys)


def test_plain_names_are_kept():
    names = ("a.png", "p1/w2/a-1.tif", "x.ome.tif")
    assert [key_of(PurePosixPath(name)) for name in names] == ["a", "p1__w2__a-1", "x"]
    assert frame_key("a", 7) == "a_f0007"


@pytest.mark.parametrize("count", [1, 2, 7, 50, 199])
@pytest.mark.parametrize("max_count", [1, 2, 3, 16, 64])
def test_keys_are_spaced_as_numpys_linspace(count, max_count):
    keys = [f"image{i:03}" for i in range(count)]
    expected = {keys[int(i)] for i in np.linspace(0, count - 1, max_count).round()}
    assert evenly_spaced(keys, max_count) == sorted(expected)
