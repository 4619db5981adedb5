"""Rare kinds of images are drawn and chosen more often than their share of the area; similar ones by area."""

import numpy as np
import pytest
from real_labels import wheel_nuclei

from shared.data import sampling
from shared.data.sampling import Mixture, mixture, sample_keys
from shared.imaging.appearance import appearance
from shared.imaging.normalise import Normalisation

NORMALISATION = Normalisation()


def appearances(images: dict[str, np.ndarray]):
    return lambda key: appearance(images[key], NORMALISATION.limits(images[key]), NORMALISATION)


def made_of(images: dict[str, np.ndarray], areas: np.ndarray | None = None) -> Mixture:
    return mixture(list(images), np.ones(len(images)) if areas is None else areas, appearances(images))


@pytest.fixture(scope="module")
def nuclei() -> dict[str, np.ndarray]:
    """Sixteen crops of real nuclei."""
    plane = wheel_nuclei()[0]
    return {f"n{i}": plane[128 * (i // 4) :][:128, 128 * (i % 4) :][:, :128, None] for i in range(16)}


def negative(image: np.ndarray) -> np.ndarray:
    """The same, dark on light."""
    return image.max() - image


def test_of_images_that_look_alike_each_counts_as_its_area_says() -> None:
    image = wheel_nuclei()[0][:256, :256, None]
    images = {"a": image, "b": image[:, ::-1], "c": image[::-1]}
    areas = np.array([4.0, 4.0, 1.0])
    found = made_of(images, areas)
    np.testing.assert_allclose(found.probabilities, areas**0.75 / (areas**0.75).sum(), rtol=1e-3)
    assert found.kinds == pytest.approx(1, abs=1e-3)


def test_one_of_another_kind_is_drawn_more_often_but_not_as_often_as_all_others(nuclei) -> None:
    images = nuclei | {"other": negative(nuclei["n0"])}
    found = dict(zip(images, made_of(images).probabilities, strict=True))
    assert sum(found.values()) == pytest.approx(1)
    assert 3 / 17 < found["other"] < 1 / 2
    alike = np.array([found[key] for key in nuclei])
    assert found["other"] > 4 * np.median(alike)


def test_kinds_are_counted_however_common_each_is() -> None:
    """Dark images with a few bright pixels and one the other way round: against Leinster and Cobbold's formula."""
    dark = np.zeros((64, 64, 1), np.float32)
    dark[:4] = 1
    images = {f"dark{i}": np.roll(dark, 4 * i, axis=0) for i in range(9)} | {"light": 1 - dark}
    areas = np.array([*range(1, 10), 5.0])
    seen = np.stack([appearances(images)(key) for key in images])
    alike = np.exp(-((seen[:, None] - seen) ** 2).mean(axis=2) / (2 * sampling.SAME_KIND_WITHIN**2))
    part = areas / areas.sum()
    assert made_of(images, areas).kinds == pytest.approx((part / (alike @ part)).sum(), rel=1e-5)
    assert 1.99 < made_of(images, areas).kinds <= 2


def test_of_a_large_set_some_are_compared_and_the_rest_get_the_median(nuclei, monkeypatch) -> None:
    monkeypatch.setattr(sampling, "MAX_COMPARED", 5)
    seen = []

    def appearance_of(key: str) -> np.ndarray:
        seen.append(key)
        return appearances(nuclei)(key)

    found = dict(zip(nuclei, mixture(list(nuclei), np.ones(16), appearance_of).probabilities, strict=True))
    assert len(seen) == 5
    rest = {found[key] for key in nuclei if key not in seen}
    assert len(rest) == 1 and rest.pop() == pytest.approx(np.median([found[key] for key in seen]))


def test_grey_and_coloured_images_can_be_compared() -> None:
    grey = wheel_nuclei()[0][:64, :64, None]
    images = {"grey": grey, "colour": np.repeat(grey, 3, axis=2), "five": np.repeat(grey, 5, axis=2)}
    np.testing.assert_allclose(made_of(images).probabilities, 1 / 3, rtol=1e-6)


def test_all_where_the_budget_reaches_and_else_about_so_much_evenly_spread(nuclei) -> None:
    image = nuclei["n0"]
    images = {f"i{number:02d}": image for number in range(40)}
    keys, areas = list(images), np.full(40, 100.0)
    assert sample_keys(keys, areas, 4000, appearances(images)) == keys
    for budget in (500, 1000, 2000):
        places = [keys.index(key) for key in sample_keys(keys, areas, budget, appearances(images))]
        assert len(places) == budget // 100
        assert np.abs(np.diff(places) - 4000 / budget).max() <= 1


def test_rare_kinds_rather_than_common_ones(nuclei) -> None:
    images = {f"{name}{i}": image for name, image in nuclei.items() for i in range(4)}
    others = {f"z{i}": negative(nuclei[f"n{i}"]) for i in range(4)}
    keys = [*images, *others]
    found = sample_keys(keys, np.ones(68), 17, appearances(images | others))
    assert 12 <= len(found) <= 20 and found == sorted(found, key=keys.index)
    assert len(set(found) & set(others)) / 4 > 2 * len(set(found) & set(images)) / 64


def test_what_is_chosen_is_about_the_budget_where_sizes_differ(nuclei) -> None:
    images = dict.fromkeys([f"i{number:02d}" for number in range(64)], nuclei["n0"])
    sizes = dict(zip(images, np.where(np.arange(64) % 2, 4.0, 1.0), strict=True))
    chosen = sample_keys(list(images), np.array(list(sizes.values())), 40, appearances(images))
    assert sum(sizes[key] for key in chosen) == pytest.approx(40, abs=4)
    large = sum(sizes[key] == 4 for key in chosen)
    assert large / len(chosen) == pytest.approx(4**0.25 / (1 + 4**0.25), abs=0.08)
