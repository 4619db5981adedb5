"""ImageSets: pixels keep their bit depth and channels, and equal images give equal bytes."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from shared.artifacts.image_codec import decode_image, encode_image, pixel_hash
from shared.artifacts.image_set import ImageReader, ImageWriter, median_um_per_px
from shared.artifacts.kinds import ImageSet
from shared.artifacts.manifest import seal, verify
from shared.system.errors import ArtifactError

DTYPES = [np.uint8, np.uint16, np.float16, np.float32, np.float64]


def image(dtype: type, channels: int, height: int = 33, width: int = 47) -> np.ndarray:
    values = np.random.default_rng(channels).normal(size=(height, width, channels))
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else (values * 1000).astype(np.int64).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_every_dtype_and_number_of_channels_survives_a_round_trip(dtype, channels):
    before = image(dtype, channels)
    encoded = encode_image(before)
    after = decode_image(encoded.data)
    assert after.dtype == before.dtype and np.array_equal(after, before)
    assert encode_image(before) == encoded == encode_image(np.asfortranarray(before))
    assert (encoded.shape, encoded.dtype, encoded.sha256) == (before.shape, str(before.dtype), pixel_hash(before))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    npst.arrays(
        st.sampled_from([np.uint8, np.uint16, np.float32]),
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5)),
    )
)
def test_any_shape_survives_a_round_trip(array):
    after = decode_image(encode_image(array).data)
    assert after.dtype == array.dtype and after.shape == array.shape and after.tobytes() == array.tobytes()


def test_other_programs_read_the_members(tmp_path):
    for name, array in {"rgb": image(np.uint8, 3), "grey": image(np.uint16, 1), "five": image(np.float32, 5)}.items():
        encoded = encode_image(array)
        path = tmp_path / f"{name}.{encoded.extension}"
        path.write_bytes(encoded.data)
        if encoded.extension == "png":
            assert np.array_equal(np.asarray(Image.open(path)), array.squeeze())
        else:
            assert np.array_equal(tifffile.imread(path), array.transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(5, 5), (2, 5, 5, 1)])
def test_an_image_has_three_axes(shape):
    with pytest.raises(ValueError, match="height, width, channels"):
        encode_image(np.zeros(shape, np.uint8))


def test_the_hash_covers_dtype_shape_and_pixels():
    plain = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    others = [plain.reshape(4, 3, 1), plain.astype(np.uint16), plain[::-1], plain.view(np.int8)]
    assert len({pixel_hash(array) for array in (plain, *others)}) == 5
    assert pixel_hash(np.asfortranarray(plain)) == pixel_hash(plain)


def write(folder, names=("a", "a-b", "b")):
    with ImageWriter(folder) as writer:
        for i, name in enumerate(names):
            writer.add(name, image(DTYPES[i], i + 1), source=f"{name}.tif", um_per_px=0.5, group="g", split="val")
    return folder


def test_a_set_survives_a_round_trip(tmp_path):
    seal(write(tmp_path / "set"), ImageSet)
    verify(tmp_path / "set", ImageSet)
    reader = ImageReader(tmp_path / "set")
    assert len(reader) == 3 and reader.keys() == ["a", "a-b", "b"] == reader.keys("val") and not reader.keys("train")
    for i, (entry, pixels) in enumerate(reader):
        assert np.array_equal(pixels, image(DTYPES[i], i + 1)) and entry.dtype == str(pixels.dtype)
        assert (entry.height, entry.width, entry.channels) == pixels.shape
        assert entry.sha256 == pixel_hash(pixels) and entry.um_per_px == 0.5


def test_equal_sets_have_equal_digests_and_others_do_not(tmp_path):
    digests = [seal(write(tmp_path / name), ImageSet).digest for name in "xy"]
    digests.append(seal(write(tmp_path / "z", ("a", "a-b", "c")), ImageSet).digest)
    assert digests[0] == digests[1] != digests[2]


def test_an_image_encoded_beforehand_is_stored_alike(tmp_path):
    write(tmp_path / "one", ("a",))
    with ImageWriter(tmp_path / "two") as writer:
        encoded = encode_image(image(DTYPES[0], 1))
        writer.add("a", encoded, source="a.tif", um_per_px=0.5, group="g", split="val")
    for name in ("index.jsonl", "images-00000.tar"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_payload_is_read_before_it_is_sealed(tmp_path):
    write(tmp_path / "set")
    with pytest.raises(ArtifactError, match=r"artifact\.json"):
        ImageReader(tmp_path / "set")
    assert ImageReader(tmp_path / "set", sealed=False).read("a").shape == (33, 47, 1)


@pytest.mark.parametrize(
    ("sizes", "median"),
    [([], None), ([None, None], None), ([0.5], 0.5), ([None, 0.2, 0.4], 0.3), ([0.1, 0.5, 0.2], 0.2)],
)
def test_the_median_pixel_size_is_of_the_images_that_state_one(tmp_path, sizes, median):
    with ImageWriter(tmp_path / "set") as writer:
        for i, size in enumerate(sizes):
            writer.add(f"image{i}", image(np.uint8, 1, 8, 8), source=f"{i}.tif", um_per_px=size)
        writer.add("other", image(np.uint8, 1, 8, 8), source="other.tif", um_per_px=7.0)
    seal(tmp_path / "set", ImageSet)
    reader = ImageReader(tmp_path / "set")
    found = median_um_per_px(reader, sorted(set(reader.entries) - {"other"}))
    assert found == (None if median is None else pytest.approx(median))


@pytest.mark.parametrize("names", [("b", "a"), ("a", "a"), ("a_b", "a-b")])
def test_keys_ascend(tmp_path, names):
    with pytest.raises(ValueError, match="ascending"):
        write(tmp_path / "set", names)
    assert not (tmp_path / "set/index.jsonl").exists()


def test_an_image_that_differs_from_the_index_is_named(tmp_path):
    folder = write(tmp_path / "set")
    index = folder / "index.jsonl"
    index.write_text(index.read_text().replace('"height": 33', '"height": 34'))
    seal(folder, ImageSet)
    with pytest.raises(ArtifactError, match="its index has"):
        ImageReader(folder).read("a")


def test_a_changed_byte_and_a_broken_index_are_named(tmp_path):
    folder = write(tmp_path / "set")
    seal(folder, ImageSet)
    tar = folder / "images-00000.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    with pytest.raises(ArtifactError, match="contents differ"):
        verify(folder, ImageSet)
    (folder / "index.jsonl").write_text("{}\n")
    with pytest.raises(ArtifactError, match=r"index\.jsonl:1"):
        ImageReader(folder)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"key": "../../x"}, "string_pattern|match pattern"),
        ({"key": "a/b"}, "match pattern"),
        ({"key": ""}, "match pattern"),
        ({"key": "k" * 101}, "match pattern"),
        ({"height": 0}, "greater than 0"),
        ({"channels": -1}, "greater than 0"),
        ({"magnification": 10**6}, "less than or equal to 8"),
        ({"member": {"shard": "images-00000.tar", "offset": -1, "size": 5}}, "greater than or equal to 0"),
    ],
)
def test_an_index_from_elsewhere_can_name_no_path_and_no_size_without_bounds(tmp_path, change, problem):
    write(tmp_path, ("a",))
    index = tmp_path / "index.jsonl"
    index.write_text(json.dumps(json.loads(index.read_text()) | change) + "\n")
    with pytest.raises(ArtifactError, match=rf"index.jsonl:1: .*({problem})"):
        ImageReader(tmp_path, sealed=False)


def test_a_member_of_an_absurd_size_takes_no_memory(tmp_path):
    write(tmp_path, ("a",))
    index = tmp_path / "index.jsonl"
    row = json.loads(index.read_text())
    for offset, size in ((row["member"]["offset"], 2**50), (2**60, 10)):
        row["member"] = {**row["member"], "offset": offset, "size": size}
        index.write_text(json.dumps(row) + "\n")
        with pytest.raises(ArtifactError, match="ends before byte"):
            ImageReader(tmp_path, sealed=False).read("a")


def test_an_index_that_is_no_text_is_named(tmp_path):
    write(tmp_path, ("a",))
    (tmp_path / "index.jsonl").write_bytes(b'{"key": "\xff\xfe"}\n')
    with pytest.raises(ArtifactError, match=r"index\.jsonl:1: "):
        ImageReader(tmp_path, sealed=False)
