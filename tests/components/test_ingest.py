"""`ingest` on real and on broken folders, through `run` and the command line."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from bad_images import BAD, encoded, picture, write_all
from ingest_run import Outcome, ingest, real, some
from PIL import Image
from pycocotools.coco import COCO
from real_labels import wheel_nuclei

from shared.artifacts.kinds import ImageSet
from shared.artifacts.label_set import LabelReader
from shared.artifacts.manifest import seal
from shared.readers.ingestion import ingest_plain
from shared.system.errors import UserError

ROOT = Path(__file__).parents[2]

# --- real images --------------------------------------------------------------------------------------------------


def test_a_real_image_with_labelled_nuclei(tmp_path):
    image, mask = wheel_nuclei()
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in/img2d.tif", image)
    tifffile.imwrite(tmp_path / "in/img2d_mask.tif", mask)
    done = ingest(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(done.images.read("img2d")[..., 0], image)
    assert done.result.metrics["instances"] == len(np.unique(mask)) - 1 == 125
    found = done.labels.mask("img2d")
    assert len(np.unique(np.stack([found.ravel(), mask.ravel()]), axis=1).T) == 126  # one to one
    assert "NAME.tif with NAME_mask.tif (1 image)" in done.labels.info.notes["layout"]


def test_phase_contrast_with_labelled_cells(tmp_path):
    source = some(
        real("usiigaci/labelled"), tmp_path / "in", "set1.tif", "set1_masks.png", "set6.tif", "set6_masks.png"
    )
    done = ingest(source, tmp_path / "out")
    assert done.images.keys() == ["set1", "set6"] == done.labels.keys() and not done.rejects
    for key in ("set1", "set6"):
        entry = done.images.entries[key]
        assert (entry.height, entry.width, entry.channels, entry.dtype) == (1022, 1024, 1, "uint16")
        assert np.array_equal(done.images.read(key)[..., 0], tifffile.imread(source / f"{key}.tif"))
        truth = imagecodecs.imread(str(source / f"{key}_masks.png"))
        assert np.array_equal(done.labels.mask(key) > 0, truth > 0)
        assert done.labels.mask(key).max() == len(np.unique(truth)) - 1
    html = done.result.page.html()
    assert html.count("<figure>") == 2 and "objects" in html


def test_blood_smears_with_boxes(tmp_path):
    names = ("BloodImage_00338.*", "BloodImage_0033[0-7].*")
    source = some(real("bccd/val"), tmp_path / "in/val", *names).parent
    done = ingest(source, tmp_path / "out")
    assert {entry.split for entry in done.images.entries.values()} == {"val"}
    assert "degenerate" in done.rejects["val/BloodImage_00338.jpg"]
    assert done.result.metrics["rejects"] == 0 and done.result.metrics["label_rejects"] == 1
    coco = COCO(done.out / "labels/annotations.coco.json")
    assert {category["name"] for category in coco.cats.values()} <= {"RBC", "WBC", "Platelets"}
    assert [image["file_name"] for image in coco.imgs.values()] == done.images.keys()
    objects = sum(path.read_text().count("<object>") for path in source.glob("val/*.xml"))
    assert len(coco.anns) == objects - 1 == done.result.metrics["boxes"]
    assert done.result.metrics["labelled"] == len(done.images)
    contents = done.labels.contents()
    assert (contents.label_images, contents.annotations, contents.classes) == (0, len(done.images), 0)
    boxes = done.labels.boxes()
    assert {key: len(found) for key, found in boxes.items()} == Counter(
        coco.imgs[row["image_id"]]["file_name"] for row in coco.anns.values()
    )
    assert all(x >= 0 and y >= 0 and x + w <= 640 and y + h <= 480 for found in boxes.values() for x, y, w, h in found)


def test_cells_with_classes(tmp_path):
    """Class folders and nothing else: the LabelSet holds classes alone."""
    for split, name, count in (("train", "positive", 3), ("train", "negative", 2), ("test", "positive", 1)):
        folder = real("malaria") / split / name
        some(folder, tmp_path / "in" / split / name, *(path.name for path in sorted(folder.iterdir())[:count]))
    done = ingest(tmp_path / "in", tmp_path / "out")
    contents = done.labels.contents()
    assert (contents.label_images, contents.annotations, contents.classes) == (0, 0, 6)
    assert Counter(done.labels.classes().values()) == {"positive": 4, "negative": 2}
    assert done.labels.info.origin == "truth" and done.result.metrics["labelled"] == 6 == len(done.images)
    assert not LabelReader(done.out / "no_labels").contents()


def test_one_mask_per_object_of_real_nuclei(tmp_path):
    """The masks of a real image, cut into one file per nucleus as in the Data Science Bowl 2018."""
    masks = sorted(real("dsb2018/fluo").glob("*_masks.png"))[:2]
    for path in masks:
        name = path.name.removesuffix("_masks.png")
        truth = imagecodecs.imread(str(path))
        for folder in ("images", "masks"):
            (tmp_path / "in" / name / folder).mkdir(parents=True)
        shutil.copy(path.with_name(f"{name}_img.png"), tmp_path / "in" / name / "images" / f"{name}.png")
        for value in np.unique(truth)[1:]:
            single = ((truth == value) * 255).astype(np.uint8)
            Image.fromarray(single).save(tmp_path / "in" / name / "masks" / f"{value:05d}.png")
    done = ingest(tmp_path / "in", tmp_path / "out")
    assert len(done.images) == 2 == len(done.labels) and not done.rejects
    for path in masks:
        name = path.name.removesuffix("_masks.png")
        key = done.sources()[f"{name}/images/{name}.png"]
        truth = imagecodecs.imread(str(path))
        assert np.array_equal(done.labels.mask(key), np.searchsorted(np.unique(truth), truth))  # same order, renumbered


# --- small made sources -------------------------------------------------------------------------------------------


def folder_with_everything(folder: Path) -> Path:
    """Small files of many kinds, some with labels."""
    for name in ("a b.png", "plate 1/ä.png", "plate 1/x_img.png", "plate_1/x.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(40 + len(name), 50)).save(folder / name)
    labels = np.zeros((40 + len("plate 1/x_img.png"), 50), np.uint8)
    labels[3:9, 3:9], labels[20:30, 20:30] = 9, 4
    Image.fromarray(labels).save(folder / "plate 1/x_masks.png")
    rng = np.random.default_rng(0)
    movie = rng.integers(0, 4000, (12, 40, 50)).astype(np.uint16)
    movie[5] = 7  # a constant frame
    tifffile.imwrite(folder / "movie.tif", movie)
    tifffile.imwrite(folder / "movie_masks.tif", np.stack([labels[:40] * (i > 3) for i in range(12)]))
    channels = rng.random((2, 40, 50)).astype(np.float32)
    tifffile.imwrite(
        folder / "two.ome.tif", channels, ome=True, metadata={"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    )
    write_all(folder)
    return folder


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("everything")
    return ingest(folder_with_everything(folder / "in"), folder / "out", max_rejects=0.9)


def test_a_movie_is_frames_of_one_group(everything):
    entries = [entry for entry in everything.images.entries.values() if entry.source.startswith("movie.tif#")]
    assert [entry.key for entry in entries] == [f"movie_f{i:04d}" for i in range(12) if i != 5]
    assert {entry.group for entry in entries} == {"movie.tif"}
    assert everything.rejects["movie.tif#5"].startswith("constant")
    assert everything.labels.mask("movie_f0004").max() == 2 and everything.labels.mask("movie_f0003").max() == 0


def test_slides_are_groups_by_a_pattern(tmp_path):
    folder = real("malaria") / "train"
    for name in ("positive", "negative"):
        some(folder / name, tmp_path / "in" / name, *(path.name for path in sorted((folder / name).iterdir())[::150]))
    done = ingest(tmp_path / "in", tmp_path / "out", group_pattern="(?i)([^/]*)thinf")
    entries = done.images.entries.values()
    assert {entry.group for entry in entries} == {
        Path(entry.source).name.replace("thinF", "ThinF").split("ThinF")[0] for entry in entries
    }
    assert 5 < len({entry.group for entry in entries}) < len(entries)
    assert "groups in the names of 16 of 16 images" in done.result.remark
    with pytest.raises(UserError, match=r"--group_pattern: '\(a' is no regular expression: missing \)"):
        ingest(tmp_path / "in", tmp_path / "bad", group_pattern="(a")


def test_a_pattern_names_the_group_of_a_movie(tmp_path):
    (tmp_path / "in").mkdir()
    frames = np.random.default_rng(0).integers(0, 255, (3, 32, 32), np.uint8)
    for name in ("well1_a", "well1_b", "other"):
        tifffile.imwrite(tmp_path / "in" / f"{name}.tif", frames, photometric="minisblack")
    entries = ingest(tmp_path / "in", tmp_path / "out", group_pattern=r"well\d").images.entries
    assert {entry.group for entry in entries.values()} == {"well1", "other.tif"}
    assert entries["well1_a_f0000"].group == entries["well1_b_f0002"].group == "well1"


def test_frames_and_files_with_one_name_have_different_keys(tmp_path):
    (tmp_path / "in").mkdir()
    movie = np.random.default_rng(0).integers(0, 4000, (5, 40, 50)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "in/a.tif", movie)
    tifffile.imwrite(tmp_path / "in/a_f0001.tif", movie[2])
    done = ingest(tmp_path / "in", tmp_path / "out")
    sources = done.sources()
    assert set(sources) == {*(f"a.tif#{i}" for i in range(5)), "a_f0001.tif"} and len(set(sources.values())) == 6
    assert (sources["a.tif#0"], sources["a.tif#2"]) == ("a_f0000", "a_f0002")
    assert np.array_equal(done.images.read(sources["a.tif#1"])[..., 0], movie[1])


def test_channels_depth_and_scale_are_kept(everything):
    entry = everything.images.entries["two"]
    assert (entry.channels, entry.dtype, entry.um_per_px) == (2, "float32", 0.5)
    assert everything.images.read("two").shape == (40, 50, 2)
    source = Path(everything.out).parent / "in/two.ome.tif"
    assert np.array_equal(everything.images.read("two"), tifffile.imread(source).transpose(1, 2, 0))


def test_every_bad_file_is_listed_with_its_reason(everything):
    for name, (_, reason) in BAD.items():
        assert reason in everything.rejects[name], name
    assert everything.result.metrics["rejects"] == len(BAD) + 1  # and the movie's constant frame
    html = everything.result.page.html()
    assert "huge.tif" in html and "without its end mark" in html


def test_groups_keys_and_members(everything):
    sources = everything.sources()
    assert everything.images.entries[sources["plate 1/ä.png"]].group == "plate 1"
    assert everything.images.entries[sources["plate_1/x.jpg"]].group == "plate_1"
    assert everything.labels.mask(sources["plate 1/x_img.png"]).max() == 2
    assert everything.images.keys() == list(everything.images.entries)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_same_files_same_digest(everything, tmp_path, monkeypatch, threads):
    """Another place, order, time of writing, and number of threads give the same digest."""
    monkeypatch.setenv("CYTOLOOM_THREADS", threads)
    before = everything.out.parent / "in"
    folder = tmp_path / "test" / "images"  # names that would mean something below the source
    files = sorted((path for path in before.rglob("*") if path.is_file()), reverse=True)
    for i, path in enumerate(files):
        target = folder / path.relative_to(before)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        os.utime(target, (i, i))
    again = ingest(folder, tmp_path / "out", max_rejects=0.9)
    assert again.digests == everything.digests
    (folder / "a b.png").write_bytes(encoded("PNG"))
    changed = ingest(folder, tmp_path / "out2", max_rejects=0.9)
    assert changed.digests["images"] != everything.digests["images"]


def test_on_the_fly_gives_the_same_images(everything, tmp_path):
    with pytest.raises(UserError, match="max_rejects"):
        ingest_plain(str(everything.out.parent / "in"), tmp_path / "images")
    good = tmp_path / "good"
    shutil.copytree(everything.out.parent / "in", good, ignore=lambda _, names: set(names) & set(BAD))
    ingest_plain(str(good), tmp_path / "fly")
    fly = ingest(good, tmp_path / "out")
    assert seal(tmp_path / "fly", ImageSet, stage="ingest").digest == fly.digests["images"]


def test_a_mask_of_another_size_is_listed_and_the_image_kept(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(picture()).save(tmp_path / "in/a.png")
    Image.fromarray(np.ones((30, 30), np.uint8)).save(tmp_path / "in/a_masks.png")
    done = ingest(tmp_path / "in", tmp_path / "out")
    assert done.images.keys() == ["a"] and not done.labels.keys()
    assert done.rejects["a.png"] == "label: a_masks.png: 30 x 30 px, but its image has 80 x 60"
    assert done.result.metrics["rejects"] == 0 and done.result.metrics["label_rejects"] == 1


def test_class_folders(tmp_path):
    for split in ("train", "valid", "test"):
        for name in ("positive", "negative"):
            (tmp_path / "in" / split / name).mkdir(parents=True)
            for i in range(2):
                Image.fromarray(picture(30 + i, 40)).save(tmp_path / "in" / split / name / f"{i}.png")
    done = ingest(tmp_path / "in", tmp_path / "out")
    classes = done.labels.classes()
    for source, key in done.sources().items():
        assert classes[key] == source.split("/")[1]
    assert len(done.images.keys("train")) == len(done.images.keys("val")) == len(done.images.keys("test")) == 4
    assert done.result.metrics["labelled"] == 12


def test_boxes_alone(tmp_path):
    (tmp_path / "in").mkdir()
    box = "<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>15</xmax><ymax>26</ymax></bndbox>"
    for name, objects in (("a", f"<object><name>RBC</name>{box}</object>"), ("b", "")):
        Image.fromarray(picture()).save(tmp_path / f"in/{name}.png")
        (tmp_path / f"in/{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    Image.fromarray(picture()).save(tmp_path / "in/c.png")
    done = ingest(tmp_path / "in", tmp_path / "out")
    (annotation,) = done.labels.annotations()["a"]
    assert (annotation.category, annotation.bbox, annotation.rle) == ("RBC", (5, 6, 10, 20), None)
    assert done.labels.boxes() == {"a": [(5, 6, 10, 20)], "b": []}  # b is known to hold nothing, c is unknown
    assert not len(done.labels) and done.labels.contents().annotations == 2
    assert (done.result.metrics["labelled"], done.result.metrics["boxes"]) == (2, 1)


def test_the_remark_is_the_layout(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(picture()).save(tmp_path / "in/a.png")
    done = ingest(tmp_path / "in", tmp_path / "out")
    assert done.result.remark == f"Layout: {done.labels.info.notes['layout']}."


def test_coco_outlines_become_instances_as_well(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(picture()).save(tmp_path / "in/a.png")
    Image.fromarray(picture()).save(tmp_path / "in/b.png")
    rows = [
        {
            "id": 5,
            "image_id": 1,
            "category_id": 3,
            "segmentation": [[2, 2, 12, 2, 12, 12, 2, 12]],
            "bbox": [2, 2, 10, 10],
        },
        {
            "id": 6,
            "image_id": 1,
            "category_id": 3,
            "segmentation": [[30, 2, 42, 2, 42, 12, 30, 12]],
            "bbox": [30, 2, 12, 10],
        },
    ]
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    coco = {"images": images, "annotations": rows, "categories": [{"id": 3, "name": "cell"}]}
    (tmp_path / "in/labels.json").write_text(json.dumps(coco))
    done = ingest(tmp_path / "in", tmp_path / "out")
    assert np.bincount(done.labels.mask("a").ravel())[1:].tolist() == [100, 120]
    found = done.labels.coco()
    assert found["categories"] == [{"id": 1, "name": "cell"}] and len(found["images"]) == 2
    assert [row["bbox"] for row in found["annotations"]] == [[2, 2, 10, 10], [30, 2, 12, 10]]
    assert done.result.metrics["labelled"] == 2  # b is known to hold nothing


def test_one_file_is_a_source(tmp_path):
    (tmp_path / "größe 1.png").write_bytes(encoded("PNG"))
    done = ingest(tmp_path / "größe 1.png", tmp_path / "out")
    assert list(done.sources()) == ["größe 1.png"] and done.images.read(done.images.keys()[0]).shape == (60, 80, 3)


def test_names_that_are_not_utf8(tmp_path):
    (tmp_path / "in").mkdir()
    try:
        (tmp_path / "in" / os.fsdecode(b"a\xff.png")).write_bytes(encoded("PNG"))
        (tmp_path / "in" / os.fsdecode(b"b\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes no such names")
    done = ingest(tmp_path / "in", tmp_path / "out")
    assert list(done.sources()) == ["a\\xff.png"] and list(done.rejects) == ["b\\xff.png"]
    assert "b\\xff.png" in done.result.page.html()


def test_the_fingerprint_is_passed_on_or_computed(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(encoded("PNG"))
    given = ingest(tmp_path / "in", tmp_path / "1", fingerprint="abc").result.values
    made = ingest(tmp_path / "in", tmp_path / "2").result.values
    assert given == {"fingerprint_out": "abc"} and len(made["fingerprint_out"]) == 32


# --- unusable sources ---------------------------------------------------------------------------------------------


def fails(source: Path, out: Path, *words: str, **parameters: object) -> None:
    with pytest.raises(UserError) as error:
        ingest(source, out, **parameters)
    assert all(word in str(error.value) for word in (str(source), *words)), error.value


def test_sources_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("a")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.tif").write_bytes(b"")
    fails(tmp_path / "nowhere", tmp_path / "1", "no such file or folder")
    fails(tmp_path / "empty", tmp_path / "2", "no image files", "nothing")
    fails(tmp_path / "texts", tmp_path / "3", "no image files", "1 .txt")
    fails(tmp_path / "bad", tmp_path / "4", "a.tif: the file is empty", max_rejects=1)
    fails(tmp_path / "bad/a.tif", tmp_path / "5", "empty")


def test_too_many_rejects_fail(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "in" / name).write_bytes(encoded("PNG"))
    (tmp_path / "in/d.png").write_bytes(b"text")
    assert len(ingest(tmp_path / "in", tmp_path / "1", max_rejects=0.25).images) == 3
    fails(tmp_path / "in", tmp_path / "2", "1 of 4", "share than 0.2;", "d.png: not a PNG", max_rejects=0.2)


def test_an_artifact_is_refused_as_a_source(everything, tmp_path):
    fails(everything.out / "images", tmp_path / "out", "ImageSet")


def test_files_and_folders_without_read_permission():
    """Without the right of root to pass over permissions."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom shared.readers.ingestion import ingest_plain\n"
        "import shared.system.log; shared.system.log.set_up_logging('t')\n"
        "try: print(len(ingest_plain(sys.argv[1], Path(sys.argv[2])).images))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    with tempfile.TemporaryDirectory() as top:
        source, out = Path(top) / "in", Path(top) / "out"
        (source / "sub").mkdir(parents=True)
        for name in ("a.png", "b.png", "c.png", "sub/d.png"):
            (source / name).write_bytes(encoded("PNG"))
            (source / name).chmod(0 if name == "b.png" else 0o644)
        (source / "sub").chmod(0)
        restricted = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
        run_ = [*restricted, sys.executable, "-c", code, source, out]
        done = subprocess.run(run_, cwd=ROOT, capture_output=True, text=True)
        assert done.stdout == "2\n", done.stderr
        assert (out / "rejects.csv").read_text() == "source,reason\nb.png,no read permission\nsub,no read permission\n"
        source.chmod(0)
        done = subprocess.run(run_, cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.startswith(f"UserError {source}: no read permission"), done.stderr


def command(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "components", "ingest", *map(str, words)], cwd=ROOT, capture_output=True, text=True
    )


def outputs(out: Path) -> list[object]:
    return [word for name in ("images", "labels", "no_labels") for word in (f"--{name}", out / name)]


def test_the_command_line_leaves_artifacts_or_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(encoded("PNG"))
    (tmp_path / "in/b.png").write_bytes(encoded("PNG")[:-40])
    report = tmp_path / "report.html"
    done = command("--source", tmp_path / "in", *outputs(tmp_path / "out"), "--report", report)
    assert done.returncode == 0, done.stderr
    assert "rejected b.png: truncated" in done.stderr and "layout: flat folder" in done.stderr
    assert "b.png" in report.read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name[0] != ".") == [
        "images",
        "labels",
        "no_labels",
    ]
    (tmp_path / "in/a.png").unlink()
    done = command("--source", tmp_path / "in", *outputs(tmp_path / "bad"))
    assert done.returncode == 1 and "b.png: truncated" in done.stderr and "Traceback" not in done.stderr
    assert not [path for path in (tmp_path / "bad").rglob("*") if path.is_file()]


def test_a_prefix_in_a_store_is_a_source(tmp_path, s3):
    from shared import store

    for name in ("a.png", "plate 1/b.png"):
        store.put(f"{s3}/ingest/in/{name}", encoded("PNG"))
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(encoded("PNG"))
    there = ingest(f"{s3}/ingest/in", tmp_path / "1")
    here = ingest(tmp_path / "in", tmp_path / "2")
    assert there.digests == here.digests and len(there.images) == 2
    ingest_plain(f"{s3}/ingest/in/a.png", tmp_path / "one")
    with pytest.raises(UserError, match="no object"):
        ingest(f"{s3}/ingest/nothing", tmp_path / "3")
