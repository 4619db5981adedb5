import numpy as np
import pytest
from pydantic import ValidationError

from shared.imaging.normalise import Normalisation, match_channels

PLAIN = Normalisation(low=1, high=99, clip=(-0.5, 1.5))


def test_percentiles_become_0_and_1(nuclei):
    out = PLAIN(nuclei)
    assert out.shape == nuclei.shape and out.dtype == np.float32
    low, high = np.percentile(nuclei[..., 0], [1, 99])
    expected = np.clip((nuclei.astype(np.float64) - low) / (high - low), -0.5, 1.5)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_gain_and_offset_of_a_camera_do_not_matter(nuclei):
    crop = nuclei[:256, :256]
    other = (crop.astype(np.float32) * 3 + 33_000).astype(np.float32)
    np.testing.assert_allclose(PLAIN(other), PLAIN(crop), atol=1e-3)


def test_channels_are_normalised_each_by_itself(nuclei):
    two = np.concatenate([nuclei, nuclei * 2 + 5], axis=2)
    out = PLAIN(two)
    np.testing.assert_allclose(out[..., 0], out[..., 1], atol=1e-4)


def test_fixed_limits_keep_what_differs_between_images(nuclei):
    fixed = PLAIN.model_copy(update={"fixed": ((100.0, 300.0),)})
    np.testing.assert_allclose(fixed(np.full((4, 4, 1), 200, np.uint16)), 0.5)
    np.testing.assert_allclose(fixed(nuclei), np.clip((nuclei - 100.0) / 200, -0.5, 1.5), atol=1e-6)
    assert fixed.limits(np.zeros((4, 4, 3))) == [(100, 300)] * 3, "colours that stand for a grey image"


def test_fixed_limits_fit_images_with_fewer_and_more_channels():
    image = np.arange(80, dtype=np.uint8).reshape(4, 4, 5)
    colours = PLAIN.model_copy(update={"fixed": ((0.0, 10.0), (20.0, 40.0), (1.0, 1.0))})
    assert colours.limits(image[..., :1]) == [(7, 17)], "grey that stands for colours"
    assert colours.limits(image[..., :2]) == [(0, 10), (20, 40)]
    assert colours.limits(image) == PLAIN.limits(image), "of other images than those that the limits are of"
    assert not colours(image[..., :3])[..., 2].any()
    with pytest.raises(ValidationError, match="must not be above"):
        Normalisation(fixed=((2.0, 1.0),))


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_a_constant_image_becomes_0(value):
    assert not PLAIN(np.full((20, 30, 1), value, np.uint16)).any()


def test_values_that_are_not_finite():
    image = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20, 1).copy()
    image[3, 4], image[5, 6], image[7, 8] = np.nan, np.inf, -np.inf
    out = PLAIN(image)
    assert np.isfinite(out).all()
    np.testing.assert_allclose([out[3, 4, 0], out[5, 6, 0], out[7, 8, 0]], [0, 1, 0], atol=1e-6)
    assert not PLAIN(np.full((8, 8, 1), np.nan, np.float32)).any()


def test_a_sparse_image_is_not_flattened():
    """Fewer bright pixels than the percentile leaves out: the range of all values is taken instead."""
    image = np.zeros((100, 100, 1), np.uint8)
    image[50, 50] = 200
    assert PLAIN(image).max() == 1


def test_a_part_is_normalised_as_in_its_whole(nuclei):
    limits = PLAIN.limits(nuclei)
    np.testing.assert_array_equal(PLAIN.apply(nuclei[100:200, 50:90], limits), PLAIN(nuclei)[100:200, 50:90])


def test_it_survives_a_models_config():
    assert Normalisation.model_validate_json(PLAIN.model_dump_json()) == PLAIN


@pytest.mark.parametrize("wrong", [{"low": 99, "high": 1}, {"low": -1}, {"clip": (0.5, 1.5)}, {"mode": "z"}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        Normalisation(**wrong)


@pytest.mark.parametrize(("have", "want"), [(1, 1), (1, 3), (3, 1), (4, 3), (2, 3), (5, 1)])
def test_channels_are_matched(have, want):
    image = np.random.default_rng(0).integers(0, 255, (5, 6, have)).astype(np.uint8)
    out = match_channels(image, want)
    assert out.shape == (5, 6, want)
    if have == 1:
        assert (out == image).all()
    elif want == 1:
        np.testing.assert_allclose(out[..., 0], image.astype(float).mean(2), rtol=1e-6)
    else:
        kept = min(have, want)
        assert (out[..., :kept] == image[..., :kept]).all() and not out[..., kept:].any()


@pytest.mark.parametrize("offset", [0.0, 1e9, -1e12])
def test_a_large_offset_of_float64_costs_no_contrast(nuclei, offset):
    """In float32, steps at 1e9 are 64 apart."""
    image = nuclei.astype(np.float64) + offset
    assert np.allclose(Normalisation()(image), Normalisation()(nuclei.astype(np.float64)), atol=1e-3)
