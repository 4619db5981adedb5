"""Images of small cells: enlarged for all stages, and what is found has the size of the files again."""

import numpy as np
import pytest
import tifffile
from ingest_run import ingest, real
from real_labels import wheel_nuclei
from small_segmentor import CONFIG, predict_maps, write_images, write_model

from components.evaluate.component import Evaluate
from components.evaluate.mask_predictions import LabelledImage, segmentor_predictions
from components.infer.component import Infer
from components.infer.main import run
from components.ingest.magnify import enlargement
from shared.artifacts.image_set import ImageReader
from shared.artifacts.kinds import LabelSet
from shared.artifacts.label_set import LabelReader
from shared.artifacts.manifest import seal
from shared.imaging.resize import enlarge, enlarge_labels, reduce_labels
from shared.instances.postprocess import postprocess
from shared.metrics.tally import tally

IMAGE, TRUTH = wheel_nuclei()


def test_the_factor_follows_the_size_of_the_objects_and_of_the_set():
    assert [enlargement(diameter, 10**9) for diameter in (0, 60, 17, 16, 9, 8, 3)] == [1, 1, 1, 2, 2, 4, 4]
    assert [enlargement(diameter, 10**6) for diameter in (0, 60, 17, 16, 9, 8)] == [1, 1, 1, 4, 4, 4]


def test_labels_come_back_as_they_were():
    for factor in (1, 2, 4):
        assert np.array_equal(reduce_labels(enlarge_labels(TRUTH, factor), factor), TRUTH)
    assert enlarge(IMAGE[..., None], 2).dtype == IMAGE.dtype and enlarge(IMAGE[..., None], 2).shape == (1024, 1024, 1)
    assert enlarge(IMAGE[:8, :8, None].astype(np.int64), 2).dtype == np.float32


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    for name, part in (("a", np.s_[:200, :300]), ("b", np.s_[256:456, :300])):
        (folder / "in").mkdir(exist_ok=True)
        tifffile.imwrite(folder / f"in/{name}.tif", IMAGE[part], resolution=(1e4, 1e4), resolutionunit="CENTIMETER")
        tifffile.imwrite(folder / f"in/{name}_mask.tif", TRUTH[part])
    return ingest(folder / "in", folder / "out", magnify="2")


def test_images_and_labels_are_read_enlarged(ingested):
    entry = ingested.images.entries["a"]
    assert (entry.height, entry.width, entry.magnification, entry.um_per_px) == (400, 600, 2, 0.5)
    assert ingested.images.read("a").shape == (400, 600, 1)
    assert np.array_equal(ingested.images.read_stored("a")[..., 0], IMAGE[:200, :300])
    stored = entry.stored()
    assert (stored.height, stored.width, stored.um_per_px, stored.magnification) == (200, 300, 1.0, 1)
    assert ingested.labels.mask("a").shape == ingested.labels.conf("a").shape == (400, 600)
    assert np.array_equal(ingested.labels.mask("a")[::2, ::2] > 0, TRUTH[:200, :300] > 0)
    assert ingested.result.metrics["magnification"] == 2 and "enlarged 2 times" in ingested.result.remark


def infer(images, model, out):
    for name in ("predictions", "files"):
        (out / name).mkdir(parents=True)
    run(Infer(images=images, segmentor=model, predictions=out / "predictions", files=out / "files"))
    seal(out / "predictions", LabelSet)
    return LabelReader(out / "predictions")


def test_files_have_the_size_of_the_images(ingested, tmp_path):
    magnified = CONFIG.model_copy(update={"input": CONFIG.input.model_copy(update={"magnification": 2})})
    model = write_model(tmp_path / "model", magnified)
    found = infer(ingested.out / "images", model, tmp_path / "set")
    assert found.mask("b").shape == (400, 600), "as the images and labels of the set are read"
    written = tifffile.imread(tmp_path / "set/files/labels/b.tif")
    assert written.shape == (200, 300) and np.array_equal(np.unique(written), np.arange(written.max() + 1))
    again = reduce_labels(found.mask("b"), 2)
    assert np.array_equal(written > 0, again > 0)
    large = enlarge(IMAGE[256:456, :300, None], 2)
    assert np.array_equal(found.mask("b"), postprocess(predict_maps(large), large, CONFIG.postprocessing).labels)
    assert tally(TRUTH[256:456, :300], written).metrics()["dice"] > 0.5

    plain = write_images(tmp_path / "plain", {"a": IMAGE[:200, :300, None], "b": IMAGE[256:456, :300, None]})
    small = infer(plain, model, tmp_path / "other")
    assert np.array_equal(small.mask("b"), written), "an image that is not enlarged is, for this model"
    entry = ImageReader(plain).entries["b"]
    item = LabelledImage(entry, IMAGE[256:456, :300, None], TRUTH[256:456, :300])
    stage = Evaluate(images=plain, truth=ingested.out / "labels", model=model, scores=tmp_path)
    evaluated = segmentor_predictions(stage, model)(item)()
    assert np.array_equal(evaluated.labels > 0, written > 0) and evaluated.probability.shape == (200, 300)


def test_auto_enlarges_small_cells_and_leaves_others(tmp_path):
    """Usiigaci at a fifth of its size has cells of 12 px."""
    source = real("usiigaci/labelled")
    (tmp_path / "small").mkdir()
    for path in sorted(source.glob("*.tif"))[:4]:
        image = tifffile.imread(path)[:800, :800].astype(np.float32)
        tifffile.imwrite(tmp_path / "small" / path.name, image.reshape(160, 5, 160, 5).mean(axis=(1, 3)))
    small = ingest(tmp_path / "small", tmp_path / "a", magnify="auto")
    assert {entry.magnification for entry in small.images.entries.values()} == {4}
    (tmp_path / "large").mkdir()
    for path in sorted(source.glob("*.tif"))[:4]:
        tifffile.imwrite(tmp_path / "large" / path.name, tifffile.imread(path))
    large = ingest(tmp_path / "large", tmp_path / "b", magnify="auto")
    assert {entry.magnification for entry in large.images.entries.values()} == {1}
