"""Dense features: where tokens lie, what is taken off them, and what a segmentor adds."""

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
import torch
from pydantic import BaseModel
from real_labels import real_pairs, wheel_nuclei
from scipy import ndimage

from components.cluster.clustering import sample_tokens
from components.extract_features.component import ExtractFeatures
from components.extract_features.dense_extractor import DenseExtractor
from components.extract_features.filter_bank import KINDS, SCALES, FilterExtractor, responses
from components.extract_features.main import run
from components.extract_features.position_correction import estimate_correction, fit_correction
from shared.artifacts.feature_set import FeatureReader
from shared.artifacts.image_set import ImageReader, ImageWriter
from shared.artifacts.kinds import FeatureSet, ImageSet, Model
from shared.artifacts.manifest import seal, verify
from shared.imaging.resize import mean_pool
from shared.imaging.tiling import cut_tile, tile_batches
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig, SegmentorArchitecture, SegmentorConfig
from shared.models.files import save_model
from shared.models.load import load_model
from shared.models.segmentor import Segmentor, upsample
from shared.stage.declaration import Result
from shared.system.errors import ArtifactError, UserError

SMALL = {"tile": 64, "halo": 16, "batch_size": 8}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLOOM_THREADS", "1")


def config(patch: int = 8, channels: int = 1, downsample: Literal[1, 2, 4] = 1) -> EncoderConfig:
    return EncoderConfig.preset("nano", patch=patch, channels=channels, crop=64, downsample=downsample)


def new_encoder(patch: int = 8, channels: int = 1, downsample: Literal[1, 2, 4] = 1) -> Encoder:
    torch.manual_seed(0)
    return Encoder(config(patch, channels, downsample)).eval()


def write_images(folder: Path, images: list[np.ndarray], splits: list[str] | None = None) -> Path:
    with ImageWriter(folder) as writer:
        for i, image in enumerate(images):
            pixels = image if image.ndim == 3 else image[..., None]
            writer.add(f"image{i}", pixels, source=f"{i}.tif", split=splits[i] if splits else "train")
    seal(folder, ImageSet)
    return folder


def write_encoder(folder: Path, encoder: Encoder) -> Path:
    save_model(folder, encoder.state_dict(), encoder.config, "# Encoder")
    seal(folder, Model)
    return folder


def extract(images: Path, model: Path, out: Path, **parameters) -> tuple[FeatureReader, Result]:
    out.mkdir()
    result = run(ExtractFeatures(images=images, model=model, features=out, **{**SMALL, **parameters}))
    seal(out, FeatureSet, skipped=result.skipped)
    return FeatureReader(out), result


def extractor(encoder: Encoder, **settings) -> DenseExtractor:
    return DenseExtractor(encoder, **{**SMALL, "layers": 2, "device": "cpu", **settings})


@pytest.mark.parametrize("downsample", [1, 2, 4])
def test_one_tile_without_halo_is_a_forward_pass(downsample: Literal[1, 2, 4]) -> None:
    encoder, image = new_encoder(downsample=downsample), wheel_nuclei()[0][: 64 * downsample, : 64 * downsample, None]
    tokens = extractor(encoder, halo=0).describe(image, shifts=1)[0]
    small = cv2.resize(encoder.config.input.normalisation(image), (64, 64), interpolation=cv2.INTER_AREA)
    x = torch.from_numpy(small)[None, None]
    with torch.no_grad():
        expected = encoder.features(x, 2)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(tokens, expected.astype(np.float16), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(("patch", "downsample"), [(8, 1), (16, 1), (8, 2)])
@pytest.mark.parametrize("shifts", [1, 2])
@pytest.mark.parametrize("spot", [(0, 0), (37, 90), (100, 61), (112, 126)])
def test_a_change_shows_in_the_token_that_describes_its_place(
    patch: int, downsample: Literal[1, 2, 4], shifts: int, spot: tuple[int, int]
) -> None:
    """117 x 131 px, no multiple of anything: the last rows and columns have their tokens, too."""
    image = wheel_nuclei()[0][100:217, 60:191, None].astype(np.float32)
    changed = image.copy()
    y, x = spot
    changed[y : y + 4, x : x + 4] = image.max() * 0.8
    dense = extractor(new_encoder(patch, downsample=downsample))
    (rows, columns), stride, offset = dense.geometry(image.shape[:2], shifts)
    before, after = (dense.describe(item, shifts)[0].astype(np.float32) for item in (image, changed))
    assert before.shape == (rows, columns, 256)
    assert offset <= 0 and offset + rows * stride >= 117 and offset + columns * stride >= 131
    assert offset + (rows - 1) * stride < 117  # no token wholly outside
    i, j = np.unravel_index(np.abs(after - before).sum(axis=2).argmax(), (rows, columns))
    reach = patch * downsample // 2  # a patch sees that much more than the square it describes, where there are shifts
    assert offset + i * stride - reach <= y + 2 <= offset + (i + 1) * stride + reach
    assert offset + j * stride - reach <= x + 2 <= offset + (j + 1) * stride + reach


def test_every_second_token_of_the_finer_grid_is_one_of_the_coarser() -> None:
    image, dense = wheel_nuclei()[0][:96, :96, None], extractor(new_encoder())
    coarse, fine = dense.describe(image, 1)[0], dense.describe(image, 2)[0]
    assert coarse.shape[:2] == (12, 12) and fine.shape[:2] == (25, 25)
    np.testing.assert_array_equal(fine[1::2, 1::2], coarse)


@pytest.mark.parametrize("shape", [(8, 9, 1), (64, 64, 3), (33, 150, 5), (128, 128, 1)])
def test_sizes_and_channels(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 60_000, shape).astype(np.uint16)
    reader, _ = extract(
        write_images(tmp_path / "images", [image]),
        write_encoder(tmp_path / "model", new_encoder(channels=3)),
        tmp_path / "features",
    )
    tokens = reader.tokens("image0")
    assert tokens.shape == (-(-shape[0] // 8), -(-shape[1] // 8), 256)
    assert np.isfinite(tokens).all() and reader.entries["image0"].stride == 8


def share_of_place(tokens: np.ndarray, side: int) -> float:
    """Share of the tokens' variance that the place within a tile's core explains. tokens: (h, w, channels)."""
    tokens = tokens.astype(np.float64)
    h, w = (length // side * side for length in tokens.shape[:2])
    blocks = tokens[:h, :w].reshape(h // side, side, w // side, side, -1)
    return blocks.mean(axis=(0, 2)).var(axis=(0, 1)).sum() / blocks.var(axis=(0, 1, 2, 3)).sum()


def test_the_place_in_the_tile_is_taken_off(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", [wheel_nuclei()[0]])
    reader, dense = ImageReader(images), extractor(new_encoder())
    image = reader.read("image0")
    raw = share_of_place(dense.describe(image, 1)[0], side=4)
    dense.correct = estimate_correction(dense, reader, ["image0"])
    left = share_of_place(dense.describe(image, 1)[0], side=4)
    assert raw > 0.1 and left < raw / 5
    features, _ = extract(images, write_encoder(tmp_path / "model", new_encoder()), tmp_path / "features")
    np.testing.assert_array_equal(features.tokens("image0"), dense.describe(image, 1)[0])


def test_what_else_is_in_the_tile_is_taken_off(tmp_path: Path) -> None:
    """The same patches seen from tiles laid elsewhere agree better than before, measured by their own variance."""
    reader = ImageReader(write_images(tmp_path / "images", [wheel_nuclei()[0]]))
    dense, image = extractor(new_encoder()), reader.read("image0")

    def disagreement() -> float:
        whole, moved = (
            dense.describe(image, 1)[0].astype(np.float32),
            dense.describe(image[16:, 16:], 1)[0].astype(np.float32),
        )
        return float(((whole[2:, 2:] - moved) ** 2)[4:-4, 4:-4].mean() / whole.var(axis=(0, 1)).mean())

    raw = disagreement()
    dense.correct = estimate_correction(dense, reader, ["image0"])
    assert disagreement() < raw / 3


def test_the_correction_finds_what_views_have_in_common() -> None:
    """Tokens made of a signal that stays with the patch, and of as much that changes with the tile on other axes."""
    rng = np.random.default_rng(0)
    signal, tiles = rng.normal(size=(40, 40, 3)), rng.normal(size=(400, 1, 1, 2))
    corners = rng.integers(0, 30, (200, 2))
    moves = rng.integers(-3, 4, (200, 2)).clip(-corners, 30 - corners)
    places = np.stack([corners, corners + moves], axis=1).reshape(-1, 2)
    seen = np.stack([signal[y : y + 6, x : x + 6] for y, x in places])
    mixing = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    cores = np.concatenate([seen, np.broadcast_to(tiles, (400, 6, 6, 2))], axis=-1) @ mixing.T
    matrix = mixing.T @ fit_correction(cores.astype(np.float32), moves).matrix @ mixing
    np.testing.assert_allclose(matrix, np.diag([1, 1, 1, 0, 0]), atol=0.15)


@torch.inference_mode()
def by_the_same_tiles(segmentor: Segmentor, image: np.ndarray) -> np.ndarray:
    """Foreground probability (H, W), each tile's core as the segmentor gives it for the reflected tile alone."""
    seen = segmentor.config.input
    downsample, normalisation = seen.downsample, seen.normalisation
    tile, halo = SMALL["tile"] * downsample, SMALL["halo"] * downsample
    out = np.empty(image.shape[:2], np.float32)
    for [(y, x)] in tile_batches(out.shape, tile, halo, 1):
        cut = mean_pool(normalisation.apply(cut_tile(image, y, x, tile, halo), normalisation.limits(image)), downsample)
        logits = upsample(segmentor(torch.from_numpy(cut.transpose(2, 0, 1).copy())[None]), downsample)[0, 0]
        part = out[y : y + tile - 2 * halo, x : x + tile - 2 * halo]
        part[...] = torch.sigmoid(logits)[halo : halo + part.shape[0], halo : halo + part.shape[1]]
    return out


@pytest.mark.parametrize(
    ("shifts", "downsample", "grid"), [(1, 1, (12, 13)), (2, 1, (23, 26)), (1, 2, (6, 7)), (2, 2, (12, 13))]
)
def test_a_segmentor_gives_features_and_its_probability(
    shifts: int, downsample: Literal[1, 2, 4], grid: tuple[int, int], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    encoder = config(downsample=downsample)
    kept = SegmentorConfig(architecture=SegmentorArchitecture(encoder=encoder.architecture), input=encoder.input)
    save_model(tmp_path / "model", Segmentor(kept).state_dict(), kept, "# Segmentor")
    seal(tmp_path / "model", Model)
    image = wheel_nuclei()[0][:90, :100, None]
    images = write_images(tmp_path / "images", [image])
    reader, result = extract(images, tmp_path / "model", tmp_path / "features", shifts=shifts)
    expected = by_the_same_tiles(load_model(tmp_path / "model", Segmentor), image)
    np.testing.assert_allclose(reader.probability("image0"), expected, atol=0.5 / 255 + 1e-6)
    assert reader.tokens("image0").shape == (*grid, 256)
    assert result.page.html().count("data:image/") == 3, "the image, its features and its foreground"
    filters, _ = extract(images, tmp_path / "model", tmp_path / "filters", shifts=shifts, descriptor="filters")
    np.testing.assert_array_equal(filters.probability("image0"), reader.probability("image0"))
    assert filters.tokens("image0").shape == (*grid, KINDS * len(SCALES))


def test_training_images_alone_and_the_same_bytes_again(tmp_path: Path) -> None:
    image = wheel_nuclei()[0]
    images = write_images(
        tmp_path / "images", [image[:64, :64], image[64:128, :80], image[:70, :64]], ["train", "test", "train"]
    )
    model = write_encoder(tmp_path / "model", new_encoder())
    for name in ("a", "b"):
        reader, result = extract(images, model, tmp_path / name, layers=1)
        assert reader.keys() == ["image0", "image2"]
        assert reader.probability("image0") is None
        assert reader.channels == 128 and result.metrics["tokens"] == 8 * 8 + 9 * 8
    assert verify(tmp_path / "a", FeatureSet).digest == verify(tmp_path / "b", FeatureSet).digest


def test_skip_writes_an_empty_flagged_set(tmp_path: Path) -> None:
    reader, result = extract(tmp_path / "none", tmp_path / "none", tmp_path / "features", skip=True)
    assert len(reader) == 0 and reader.skipped == result.skipped == "the EM loop has ended"


class Other(BaseModel):
    kind: str = "classifier"


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", [np.zeros((64, 64), np.uint8)], ["train"])
    model = write_encoder(tmp_path / "model", new_encoder())
    for i, (parameters, message) in enumerate(
        [({"layers": 7}, "--layers: 7 exceeds the model's 6 blocks"), ({"halo": 32}, "--halo: 32 px on each side")]
    ):
        with pytest.raises(UserError, match=message):
            extract(images, model, tmp_path / f"no{i}", **parameters)
    tests_only = write_images(tmp_path / "tests", [np.zeros((64, 64), np.uint8)], ["test"])
    with pytest.raises(UserError, match="--images: none of the 1 images is of the split train"):
        extract(tests_only, model, tmp_path / "no2")
    save_model(tmp_path / "other", {"w": torch.zeros(1)}, Other(), "")
    with pytest.raises(ArtifactError, match=r"'classifier'.*'encoder' or 'segmentor'"):
        extract(images, tmp_path / "other", tmp_path / "no3")


def test_filters_as_scipy_has_them() -> None:
    """Away from the image's border; scales 2, 4 and 8 px, for at 1 px a sampled Gaussian differs by more."""
    plane = wheel_nuclei()[0][:128, :128].astype(np.float32) / 1000
    found = responses(plane[..., None]).reshape(128, 128, len(SCALES), KINDS)
    inner = np.s_[40:-40, 40:-40]
    for i, sigma in enumerate(SCALES[1:], 1):
        gradient = sigma * ndimage.gaussian_gradient_magnitude(plane, sigma)
        laplace = sigma * sigma * ndimage.gaussian_laplace(plane, sigma)
        for kind, theirs in ((0, ndimage.gaussian_filter(plane, sigma)), (2, gradient), (3, laplace)):
            assert np.corrcoef(found[..., i, kind][inner].ravel(), theirs[inner].ravel())[0, 1] > 0.99
            assert found[..., i, kind][inner].std() == pytest.approx(theirs[inner].std(), rel=0.1)


@pytest.mark.parametrize(("shape", "shifts", "downsample"), [((70, 90), 1, 1), ((70, 90), 2, 1), ((130, 100), 1, 2)])
def test_filters_describe_their_own_square(tmp_path: Path, shape: tuple[int, int], shifts: int, downsample) -> None:
    image = wheel_nuclei()[0][: shape[0], : shape[1]]
    images = write_images(tmp_path / "images", [image])
    model = write_encoder(tmp_path / "model", new_encoder(downsample=downsample))
    features, result = extract(images, model, tmp_path / "f", descriptor="filters", shifts=shifts)
    entry, tokens = features.entries["image0"], features.tokens("image0")
    other, _ = extract(images, model, tmp_path / "g", shifts=shifts)
    assert entry.model_dump(exclude={"row", "shard"}) == other.entries["image0"].model_dump(exclude={"row", "shard"})
    assert tokens.shape == (*entry.grid, len(SCALES) * KINDS) and result.metrics["channels"] == len(SCALES) * KINDS
    filters = FilterExtractor(new_encoder(downsample=downsample), **SMALL, layers=1, device="cpu")
    plain = filters.mean_responses(image[..., None], shifts)
    mean = cv2.GaussianBlur(
        config().input.normalisation(image[..., None]), (0, 0), downsample, borderType=cv2.BORDER_REFLECT
    )
    top, left = (entry.offset + 3 * entry.stride, entry.offset + 4 * entry.stride)
    square = mean.squeeze()[top : top + entry.stride, left : left + entry.stride]
    assert plain[3, 4, 0] == pytest.approx(square.mean(), abs=2e-3)
    flat = plain.reshape(-1, tokens.shape[2])
    np.testing.assert_allclose(tokens, (plain - flat.mean(axis=0)) / flat.std(axis=0), atol=0.02)


def spread_of(tokens: np.ndarray) -> np.ndarray:
    """Share of the variance of tokens (n, channels) that each kind of response has: (KINDS,)."""
    variance = tokens.astype(np.float64).var(axis=0).reshape(-1, KINDS).sum(axis=0)
    return variance / variance.sum()


@pytest.mark.parametrize("folder", ["usiigaci/labelled", "dsb2018/fluo", "dsb2018/histo_purple"])
def test_every_filter_counts_alike_in_what_clustering_sees(tmp_path: Path, folder: str) -> None:
    """Images of one size and of several, grey and in colour; of plain responses the logarithm is nearly everything."""
    planes = [image[:384, :256, :3] if image.ndim == 3 else image[:384, :256] for image, _ in real_pairs(folder, 6)]
    images = write_images(tmp_path / "images", [plane[: 200 + 30 * i] for i, plane in enumerate(planes)])
    encoder = new_encoder(channels=3 if planes[0].ndim == 3 else 1)
    features, _ = extract(
        images, write_encoder(tmp_path / "model", encoder), tmp_path / "features", descriptor="filters"
    )
    seen = sample_tokens(features, features.keys(), 0)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen.std(axis=0), 1, atol=0.1)
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=0.1)
    filters, reader = FilterExtractor(encoder, **SMALL, layers=1, device="cpu"), ImageReader(images)
    plain = [
        filters.mean_responses(reader.read(key), 1).reshape(-1, filters.channels) for key in sorted(features.entries)
    ]
    assert spread_of(np.concatenate(plain))[1] > 0.8
    np.testing.assert_allclose(spread_of(seen), 1 / KINDS, atol=0.05)


def test_filters_without_spread_become_nothing_and_bytes_stay_equal(tmp_path: Path) -> None:
    """A third channel that no image has says nothing; every image counts alike, whatever its size."""
    plane = wheel_nuclei()[0]
    images = write_images(tmp_path / "images", [plane[:64, :64], plane[:320, :320]])
    two = [np.dstack([ImageReader(images).read(key)] * 2) for key in ("image0", "image1")]
    images = write_images(tmp_path / "two", two)
    model = write_encoder(tmp_path / "model", new_encoder(channels=3))
    found = [extract(images, model, tmp_path / name, descriptor="filters")[0] for name in ("a", "b")]
    assert verify(tmp_path / "a", FeatureSet).digest == verify(tmp_path / "b", FeatureSet).digest
    tokens = [
        found[0].tokens(key).astype(np.float64).reshape(-1, 3, len(SCALES) * KINDS) for key in ("image0", "image1")
    ]
    assert all((part[:, 2] == 0).all() and np.isfinite(part).all() for part in tokens)
    means, squares = ([(part[:, :2] ** power).mean(axis=0) for part in tokens] for power in (1, 2))
    np.testing.assert_allclose(np.mean(means, axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(np.mean(squares, axis=0), 1, atol=1e-2)
