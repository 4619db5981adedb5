"""Files made to hang, crash or exhaust what reads them: each is listed with its reason, and the rest is ingested."""

import json
import os
import random
import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import imagecodecs
import ingest_run
import numpy as np
import pytest
import tifffile
from ingest_run import ingest

from shared.readers import image_job
from shared.readers.decode.limits import Limits
from shared.system.processes.isolated_process import Bounds

ROOT = Path(__file__).parents[3]
GOOD = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
    '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="64" SizeY="64" SizeZ="1" SizeC="1" SizeT="{}">'
    '<Channel ID="C:0" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>'
)


def tiff(width: int, height: int, data: bytes, compression: int = 1, **changed: tuple[int, int, int, int]) -> bytes:
    """A little-endian TIFF of one page whose pixels begin after the directory; changed: entries in their place."""
    offset = 8 + 2 + 10 * 12 + 4
    entries = {
        "width": (256, 4, 1, width),
        "height": (257, 4, 1, height),
        "bits": (258, 3, 1, 8),
        "compression": (259, 3, 1, compression),
        "photometric": (262, 3, 1, 1),
        "offsets": (273, 4, 1, offset),
        "samples": (277, 3, 1, 1),
        "rows": (278, 4, 1, height),
        "counts": (279, 4, 1, len(data)),
        "planar": (284, 3, 1, 1),
    } | changed
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries.values()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", 0) + data


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(side: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def large_jpeg_2000() -> bytes:
    return imagecodecs.jpeg2k_encode(np.zeros((12_000, 12_000), np.uint8), level=0)


IMAGES = {
    "jpeg_2000_larger_than_its_strip.tif": lambda: tiff(64, 64, large_jpeg_2000(), 34712),
    "inflates.tif": lambda: tiff(64, 64, zlib.compress(bytes(2**28), 9), 8),
    "tile_of_2_31.tif": lambda: tiff(
        64,
        64,
        bytes(4096),
        rows=(322, 4, 1, 2**31),
        planar=(323, 4, 1, 2**31),
        offsets=(324, 4, 1, 134),
        counts=(325, 4, 1, 4096),
    ),
    "strips_8_million.tif": lambda: tiff(
        8, 8_000_000, bytes(64), offsets=(273, 4, 8_000_000, 200), rows=(278, 4, 1, 1), counts=(279, 4, 8_000_000, 200)
    ),
    "declares_much.png": lambda: png(19_000, zlib.compress(bytes(2**24), 9)),
}


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(8):
        cv2.imwrite(str(folder / f"good{number}.png"), GOOD + number)
    return folder


def test_images(source, tmp_path):
    for name, content in IMAGES.items():
        (source / name).write_bytes(content())
    for name, size in (("frames.ome.tif", 1_500_000_000), ("more_frames.ome.tif", 2**62)):
        tifffile.imwrite(source / name, GOOD, description=OME.format(size), metadata=None)
    os.mkfifo(source / "pipe.png")
    (source / "device.tif").symlink_to("/dev/zero")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = ingest(source, tmp_path / "out", max_rejects=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    assert len(outcome.images.entries) == 8
    others = {"frames.ome.tif", "more_frames.ome.tif", "pipe.png", "device.tif"}
    assert set(outcome.rejects) == set(IMAGES) | others
    assert {outcome.rejects[name] for name in ("pipe.png", "device.tif")} == {"not a regular file"}
    assert "takes more than 1.0 GiB of memory" in outcome.rejects["frames.ome.tif"]


def test_labels(source, tmp_path):
    """The images stay."""
    infinite, images = "@", [{"id": i, "file_name": f"good{i}.png"} for i in range(6)]
    zigzag = [random.Random(i).choice([-100, 120]) + i % 7 / 10 for i in range(40_000)]
    rows = [
        {"image_id": 0, "category_id": 1, "bbox": [10, 10, 10, 10]},
        {"image_id": 1, "category_id": 1, "segmentation": [[1e300] * 6]},
        {"image_id": 1, "category_id": 1, "segmentation": [zigzag]},
        {"image_id": 2, "category_id": 1, "segmentation": {"size": [64, 64], "counts": [10**30, 4096 - 10**30]}},
        {"image_id": 3, "category_id": 1, "bbox": [10**400, 0, 1, 1]},
        {"image_id": 4, "category_id": infinite, "bbox": [1, 0, infinite, 1]},
        {"image_id": 5, "category_id": 1, "iscrowd": infinite, "bbox": [1, 0, 9, 1]},
        {"image_id": 10**300, "category_id": 1, "bbox": [1, 0, 9, 1]},
    ]
    text = json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cell"}]})
    (source / "a.json").write_text(text.replace('"@"', "1e999"))
    (source / "deep.json").write_text('{"images": [], "annotations":' + "[" * 200_000 + "]" * 200_000 + "}")
    (source / "unrelated.json").write_text('{"a": [' + "[]," * 1_000_000 + "1]}")
    side = "<size><height>{}</height><width>64</width></size>"
    (source / "good6.xml").write_text(f"<annotation>{side.format('1e999')}</annotation>")
    (source / "good7.xml").write_text("<annotation>" * 100_000)
    for name in ("pipe.json", "pipe.xml", "labels.csv", "good0_masks.png"):
        os.mkfifo(source / name)
    outcome = ingest(source, tmp_path / "out")
    assert len(outcome.images.entries) == 8
    listed = {"a.json", "deep.json", "pipe.json", "pipe.xml", "labels.csv", "good7.xml"}
    assert set(outcome.rejects) == listed | {f"good{i}.png" for i in range(7)}
    assert all(reason.startswith("label: ") and len(reason) < 250 for reason in outcome.rejects.values())
    assert "inf" in outcome.rejects["good6.png"]


def test_a_label_that_crashes_its_decoder_costs_the_label(source, tmp_path, monkeypatch):
    """The bounds of a job are too tight for its label image: the image is read without it."""
    cv2.imwrite(str(source / "good3_masks.png"), np.kron(np.eye(8, dtype=np.uint8), np.ones((8, 8), np.uint8)))
    decode = image_job.isolated

    def crash(bounds, function, *arguments):
        crashes = isinstance(arguments[0], image_job.ImageJob) and arguments[0].image.mask_path
        return decode(bounds, os.abort) if crashes else decode(bounds, function, *arguments)

    monkeypatch.setattr(image_job, "isolated", crash)
    outcome = ingest(source, tmp_path / "out")
    assert len(outcome.images.entries) == 8
    assert list(outcome.rejects) == ["good3.png"]
    assert outcome.rejects["good3.png"].startswith("label: damaged, or too large")


def test_time_is_bounded(source, tmp_path, monkeypatch):
    """A header that is not read in time costs its file, and not those that are read with it."""
    monkeypatch.setattr(image_job, "read_headers", read_slowly)
    monkeypatch.setattr(image_job, "header_bounds", lambda path: Bounds(2**30, 1.0))
    outcome = ingest(source, tmp_path / "out")
    assert list(outcome.rejects) == ["good5.png"]
    assert outcome.rejects["good5.png"] == "damaged, or too large: reading it takes more than 1 s"


def read_slowly(paths: list[Path], limits: Limits) -> object:
    """Like `read_headers`, but never ends for one file."""
    while any(path.name == "good5.png" for path in paths):
        pass
    return image_job.read_headers(paths, limits)


def test_a_stage_ends_on_sigterm_while_a_file_hangs(tmp_path):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), GOOD)
    code = (
        "import sys\nfrom shared.readers import image_job\n"
        "isolated = image_job.isolated\n"
        "image_job.isolated = lambda *_: isolated(image_job.Bounds(2**30, 600), sum, range(10**12))\n"
        "print('ready', flush=True)\n"
        "from components.__main__ import command_line\nsys.exit(command_line(sys.argv[1:]))\n"
    )
    outputs = [word for name in ("images", "labels", "no_labels") for word in (f"--{name}", str(tmp_path / name))]
    process = subprocess.Popen(
        [sys.executable, "-c", code, "ingest", "--source", str(tmp_path / "in"), *outputs],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(5)
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert not (tmp_path / "images").exists()


def test_real_images_are_ingested_as_before(tmp_path):
    """Isolation changes no pixel: what a file holds is what the decoder returns in this process."""
    source = ingest_run.real("dsb2018/fluo")
    few = ingest_run.some(source, tmp_path / "in", "00*")
    outcome = ingest(few, tmp_path / "out")
    for entry in outcome.images.entries.values():
        with image_job.open_image(few / entry.source, Limits()) as file:
            expected, _ = file.read(0)
        assert np.array_equal(outcome.images.read(entry.key), image_job.to_storable(expected))
