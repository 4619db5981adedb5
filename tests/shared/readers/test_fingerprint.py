"""Fingerprints of folders and stores: every change of a file changes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.readers.fingerprint import fingerprint
from shared.system.errors import UserError

ROOT = Path(__file__).parents[3]
CONTENT = b"any bytes: a fingerprint opens no file"


def folder_of(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(CONTENT)
    return root


def test_the_fingerprint_sees_every_change(tmp_path):
    root = folder_of(tmp_path / "a", "1.png", "sub/2.png")
    seen = [fingerprint(root)]
    assert fingerprint(str(root)) == seen[0]
    (root / "3.png").write_bytes(CONTENT)
    seen.append(fingerprint(root))
    (root / "3.png").write_bytes(CONTENT + b"x")
    seen.append(fingerprint(root))
    os.utime(root / "3.png", ns=(1, 1))
    seen.append(fingerprint(root))
    (root / "3.png").rename(root / "4.png")
    seen.append(fingerprint(root))
    assert len(set(seen)) == 5
    (root / "4.png").unlink()
    root.rename(tmp_path / "moved")
    assert fingerprint(tmp_path / "moved") == seen[0]
    assert fingerprint(tmp_path / "moved/1.png") != seen[0]
    with pytest.raises(UserError):
        fingerprint(root)


def test_the_fingerprint_of_a_store(s3, tmp_path):
    from shared import store

    store.put(f"{s3}/fp/a.png", CONTENT)
    first = fingerprint(f"{s3}/fp")
    assert fingerprint(f"{s3}/fp") == first
    store.put(f"{s3}/fp/a.png", CONTENT[:-1] + b"x")
    assert fingerprint(f"{s3}/fp") != first
    with pytest.raises(UserError, match="no object"):
        fingerprint(f"{s3}/nothing-here")


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("shared.readers.fingerprint", {"numpy", "cv2", "torch", "minio"}),
        ("shared.readers.ingestion", {"torch", "timm", "minio"}),
    ],
)
def test_importing_readers_loads_nothing_heavy(module, heavy):
    """Whoever submits a run computes a fingerprint without numpy; ingest runs without torch."""
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr
