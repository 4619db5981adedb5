"""Files changed at random: nothing but a result, a listed reject or a UserError comes out.

`CYTOLOOM_FUZZING` is the number of changed files of each kind, in hundreds (1; `make fuzz` takes 30), and
`CYTOLOOM_FUZZING_SEED` the first seed. A failure names the seed and keeps the file.
"""

import contextlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import tifffile
import yaml
from finished_run import finished_run
from image_files import two_objects
from ingest_run import ingest
from mutations import mutate, mutate_json, mutate_value
from PIL import Image
from ui_server import ask, serving

from pipelines import cli
from pipelines.config import load_config
from pipelines.ir import reader
from pipelines.reporting import run_report
from shared.artifacts.image_set import ImageReader
from shared.artifacts.kinds import ImageSet, LabelSet
from shared.artifacts.label_set import LabelReader
from shared.artifacts.manifest import MANIFEST, is_artifact, seal, verify
from shared.system.errors import UserError

COUNT = round(100 * float(os.environ.get("CYTOLOOM_FUZZING", "1")))
FIRST_SEED = int(os.environ.get("CYTOLOOM_FUZZING_SEED", "0"))
RNG = np.random.default_rng(0)
GREY = (np.indices((30, 40)).sum(axis=0) * 3 + RNG.integers(0, 9, (30, 40))).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=2)
"""(30, 40, 3)"""
pytestmark = pytest.mark.timeout(60 + 30 * COUNT)


def seeds(kind: str) -> list[random.Random]:
    return [random.Random(f"{kind} {FIRST_SEED + i}") for i in range(COUNT)]


def pillow(image: np.ndarray, file_format: str, mode: str = "", **options: object) -> bytes:
    stream, picture = io.BytesIO(), Image.fromarray(image)
    (picture.convert(mode) if mode else picture).save(stream, file_format, **options)
    return stream.getvalue()


def tiff(image: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, image, **options)
    return stream.getvalue()


def images() -> dict[str, bytes]:
    """One small file of each kind, by its suffix and a word."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stack = np.stack([GREY, GREY + 1, GREY + 2])
    return {
        "grey.png": pillow(GREY, "PNG"),
        "wide.png": pillow(GREY.astype(np.uint16) * 200, "PNG"),
        "palette.png": pillow(COLOUR, "PNG", "P"),
        "alpha.png": pillow(COLOUR, "PNG", "RGBA"),
        "turned.jpg": pillow(COLOUR, "JPEG", exif=exif),
        "progressive.jpg": pillow(COLOUR, "JPEG", progressive=True),
        "plain.bmp": pillow(COLOUR, "BMP"),
        "plain.tif": tiff(GREY),
        "big.tif": tiff(GREY, bigtiff=True, byteorder=">"),
        "lzw.tif": tiff(COLOUR, compression="lzw", predictor=True, rowsperstrip=7),
        "deflate.tif": tiff(GREY.astype(np.float32), compression="deflate"),
        "jpeg.tif": tiff(COLOUR, compression="jpeg", photometric="ycbcr"),
        "jpeg2000.tif": tiff(GREY, compression="jpeg2000"),
        "tiled.tif": tiff(GREY, tile=(16, 16), compression="zstd"),
        "planar.tif": tiff(np.moveaxis(COLOUR, 2, 0), planarconfig="separate", photometric="rgb"),
        "stack.tif": tiff(stack, metadata={"axes": "TYX"}),
        "image_j.tif": tiff(stack, imagej=True, resolution=(2, 2), metadata={"unit": "um"}),
        "two.ome.tif": tiff(stack[:, None], ome=True, metadata={"axes": "TCYX", "PhysicalSizeX": 0.5}),
        "pyramid.tif": pages(GREY, GREY[::2, ::2]),
        "bits.tif": tiff(GREY > 60),
    }


def pages(*planes: np.ndarray) -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for plane in planes:
            writer.write(plane)
    return stream.getvalue()


def test_images(tmp_path):
    originals, source = images(), tmp_path / "in"
    source.mkdir()
    for name, data in originals.items():
        (source / f"original_{name}").write_bytes(data)
    names = {f"{i}_{name}": data for i, name in enumerate(sorted(originals)) for data in [originals[name]]}
    for number, rng in enumerate(seeds("images")):
        for name, data in names.items():
            if number % 4 == 0 or rng.randrange(4) == 0:
                (source / f"{number}_{name}").write_bytes(mutate(data, rng))
    outcome = ingest(source, tmp_path / "out", max_rejects=1)
    read = {entry.source.partition("#")[0] for entry in outcome.images.entries.values()}
    assert {path.name for path in source.iterdir()} == read | {name.partition("#")[0] for name in outcome.rejects}
    assert {f"original_{name}" for name in originals} <= read
    bugs = [reason for reason in outcome.rejects.values() if "exit code" in reason]
    assert not bugs


SQUARE = [[5, 5, 15, 5, 15, 15, 5, 15]]
COCO = {
    "images": [{"id": i, "file_name": f"a{i}.png", "width": 40, "height": 30} for i in range(4)],
    "annotations": [
        {"id": 1, "image_id": 0, "category_id": 1, "bbox": [5, 5, 10, 10], "segmentation": SQUARE, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 2, "segmentation": {"size": [30, 40], "counts": [100, 50, 1050]}},
        {
            "id": 3,
            "image_id": 1,
            "category_id": 2,
            "segmentation": {"size": [30, 40], "counts": "T3b1nU1"},
            "iscrowd": 1,
        },
        {"id": 4, "image_id": 2, "category_id": 1, "bbox": [1.5, 2.5, 10, 20]},
    ],
    "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "debris", "supercategory": "x"}],
}
VOC = (
    b"<annotation><filename>a3.png</filename><size><width>40</width><height>30</height><depth>1</depth></size>"
    b"<object><name>cell</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>12</xmax><ymax>13</ymax></bndbox></object>"
    b"</annotation>"
)
TABLE = (
    b"file,class,split,group\na0.png,cell,train,g1\na1.png,debris,val,g2\na2.png,cell,test,g1\na3.png,cell,train,g2\n"
)
SIDECARS: dict[str, tuple[bytes, Callable[[bytes, random.Random], bytes]]] = {
    "coco.json": (json.dumps(COCO).encode(), mutate_json),
    "a3.xml": (VOC, mutate),
    "labels.csv": (TABLE, mutate),
    "a0_masks.png": (pillow(two_objects(), "PNG"), mutate),
    "a1_masks.tif": (tiff(two_objects(np.uint16)), mutate),
}


def test_sidecars(tmp_path):
    """The images stay, and nothing is lost silently: a changed file gives labels, or is listed."""
    for number, rng in enumerate(seeds("sidecars")):
        source = tmp_path / f"in{number}"
        source.mkdir()
        for i in range(4):
            (source / f"a{i}.png").write_bytes(pillow(GREY + i, "PNG"))
        for name in rng.sample(sorted(SIDECARS), 2):
            data, change = SIDECARS[name]
            (source / name).write_bytes(change(data, rng))
        with kept(source):
            outcome = ingest(source, tmp_path / f"out{number}")
            assert len(outcome.images.entries) == 4
            for reason in outcome.rejects.values():
                assert "fault of the program" not in reason
        shutil.rmtree(source)
        shutil.rmtree(tmp_path / f"out{number}")


@contextlib.contextmanager
def kept(path: Path):
    """Name the changed file, which stays, where something fails."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{path}: {type(error).__name__}: {error}") from error


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> dict[str, Path]:
    """Sealed artifacts with images, label images, annotations and classes."""
    source = tmp_path_factory.mktemp("source")
    for i in range(4):
        (source / f"a{i}.png").write_bytes(pillow(GREY + i, "PNG"))
    for name in ("coco.json", "labels.csv"):
        (source / name).write_bytes(SIDECARS[name][0])
    made = ingest(source, tmp_path_factory.mktemp("made"))
    return {"images": made.out / "images", "labels": made.out / "labels"}


def read_images(folder: Path) -> None:
    images = ImageReader(folder)
    for key in images.entries:
        images.read(key)
        images.pixel_count(key)


def read_labels(folder: Path) -> None:
    labels = LabelReader(folder)
    for key in labels.entries:
        labels.mask(key)
        labels.conf(key)
    labels.annotations()
    labels.classes()


READERS = {
    "images": (ImageSet, read_images),
    "labels": (LabelSet, read_labels),
}


@pytest.mark.parametrize("name", ["images", "labels"])
def test_artifacts(artifacts, name, tmp_path):
    """Changed after they were sealed, or sealed after they were changed, as an attacker would."""
    kind, read = READERS[name]
    files = sorted(path.relative_to(artifacts[name]) for path in artifacts[name].rglob("*") if path.is_file())
    accepted = 0
    for number, rng in enumerate(seeds(f"artifacts {name}")):
        folder = tmp_path / str(number)
        shutil.copytree(artifacts[name], folder)
        changed = folder / rng.choice(files)
        change = mutate_json if changed.suffix == ".json" else mutate_lines
        changed.write_bytes(change(changed.read_bytes(), rng))
        with kept(folder), contextlib.suppress(UserError):
            if is_artifact(folder) and changed.name != MANIFEST and rng.randrange(4):
                (folder / MANIFEST).unlink()
                seal(folder, kind, stage="ingest")
            verify(folder, kind)
            read(folder)
            accepted += 1
        shutil.rmtree(folder)
    assert 0 < accepted < COUNT, "some changes do no harm, and some are refused"


def mutate_lines(data: bytes, rng: random.Random) -> bytes:
    """Change one line of JSON lines; other files by their bytes."""
    lines = data.splitlines()
    try:
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(mutate_value(json.loads(lines[at]), rng)).encode()
        return b"\n".join(lines) + b"\n"
    except ValueError:
        return mutate(data, rng)


def mutate_yaml(text: str, rng: random.Random) -> str:
    if rng.randrange(4) == 0:
        return mutate(text.encode(), rng).decode("utf-8", "replace")
    documents = [mutate_value(one, rng) for one in yaml.load_all(text, Loader=yaml.CSafeLoader)]
    return yaml.dump_all(documents, Dumper=yaml.CSafeDumper, allow_unicode=rng.randrange(2) == 0)


CONFIG = "rounds: 2\npretrain: {steps: 100, objective: mae}\nem/cluster: {k: 16}\ninfer: {formats: [label_tiff]}\n"


def test_config(tmp_path):
    path, accepted = tmp_path / "config.yaml", 0
    for rng in seeds("config"):
        with contextlib.suppress(UnicodeEncodeError):
            path.write_text(mutate_yaml(CONFIG, rng))
            with kept(path), contextlib.suppress(UserError):
                load_config(path)
                accepted += 1
    assert 0 < accepted < COUNT


def test_compiled_graphs(tmp_path, capsys):
    good, path = tmp_path / "good.yaml", tmp_path / "graph.yaml"
    assert cli.main(["compile", "label_free", "-o", str(good), "--set", "rounds=1"]) == 0
    text = good.read_text()
    for rng in seeds("graphs")[: 1 + COUNT // 3]:
        with contextlib.suppress(UnicodeEncodeError):
            path.write_text(mutate_yaml(text, rng))
            with kept(path), contextlib.suppress(UserError):
                graph = reader.read(path)
                for task in graph.tasks:
                    assert not {"..", ""} & set(task.split("/"))
    assert "bug" not in capsys.readouterr().err


def test_runs_from_elsewhere_and_requests(tmp_path, nuclei):
    run = tmp_path / "runs/one"
    finished_run(run, nuclei)
    text = (run / "run.json").read_bytes()
    files = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    with serving(tmp_path / "runs") as server:
        for rng in seeds("runs"):
            (run / "run.json").write_bytes(mutate_json(text, rng))
            with kept(run), contextlib.suppress(UserError):
                run_report.report(run).html().encode(errors="replace")
            for path in ("/", "/runs/one/", f"/runs/one/{changed_path(rng.choice(files), rng)}"):
                with kept(run):
                    status, headers, body = ask(server, path)
                    assert status in (200, 301, 400, 404, 500), path
                    assert "Traceback" not in body.decode(errors="replace")
                    assert "default-src 'none'" in headers["Content-Security-Policy"]


def changed_path(path: str, rng: random.Random) -> str:
    """The path with other bytes, dots and slashes, as a request line can hold them."""
    parts = path.split("/")
    parts.insert(
        rng.randrange(len(parts) + 1), rng.choice(("..", ".", "", "%2e%2e", "%00", "~", "\\", "%ff", "a" * 300))
    )
    return quote(mutate("/".join(parts).encode(), rng), safe="/%.~\\?&=")
