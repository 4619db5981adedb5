"""Seal and verify artifacts: folders of a few large files with an `artifact.json` that lists and describes them.

`artifact.json` is written last. A folder without it, or with files that differ from it, is not an artifact.
The runner imports this module before it starts a stage, so it loads no numpy.
"""

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.artifacts.kinds import ARTIFACT_KINDS, Artifact, Model
from shared.artifacts.payload import CLASSES_FILE, COCO_FILE, INDEX, check_payload, unreadable, with_article
from shared.system.errors import ArtifactError

MANIFEST = "artifact.json"
SCHEMA_VERSION = 1
SPEED_FILE = "speed.json"
"""How fast a model is; no two runs measure the same."""
NOT_PAYLOAD = {MANIFEST, SPEED_FILE, "MODEL_CARD.md", "report.html"}
"""Files that describe the payload. They do not count in its digest, nor does any `*.log`."""
_REMEDY = "fetch it or make it again"


class File(BaseModel):
    """One payload file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str
    size: int
    """Bytes."""


class Manifest(BaseModel):
    """The contents of `artifact.json`: the files of the folder, and how they were made."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: str
    """Name of its kind, see `shared.artifacts.kinds`."""
    schema_version: int = SCHEMA_VERSION
    digest: str
    """sha256 over the payload's paths and hashes: equal contents, equal digest."""
    skipped: str | None = None
    """Why the stage passed through without computing; None where it computed."""
    stage: str = ""
    """Stage that made it."""
    parameters: dict[str, Any] = {}
    """Parameters of that stage."""
    code_version: str = ""
    """`shared.stage.version.code_version` of that stage."""
    inputs: dict[str, str] = {}
    """Input name -> content digest."""
    files: dict[str, File] = {}


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_payload(name: str) -> bool:
    """Say whether a file of an artifact counts in its digest."""
    return Path(name).name not in NOT_PAYLOAD and not name.endswith(".log")


def content_digest(files: dict[str, File], kind: str = "", skipped: str | None = None) -> str:
    """Hash the payload files' paths and sha256; independent of where the folder is.

    A skipped set has another digest than an empty one. A model that a skipped stage passes on keeps its digest, so
    stages that have used it need not run again.
    """
    payload = [[name, files[name].sha256] for name in sorted(files) if is_payload(name)]
    text = json.dumps([payload, bool(skipped) and kind != Model.__name__], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hash_folder(folder: Path) -> dict[str, File]:
    """Return relative posix path -> hash and size of every file below `folder`, without the manifest itself.

    Raises ArtifactError for a symbolic link, which could lead out of the folder.
    """
    files = {}
    for root, dirs, names in os.walk(folder):
        for name in sorted(dirs + names):
            if (Path(root) / name).is_symlink():
                raise ArtifactError(f"{Path(root) / name}: an artifact must not hold symbolic links; copy the file")
        for name in names:
            path = Path(root) / name
            relative = path.relative_to(folder).as_posix()
            if relative != MANIFEST:
                files[relative] = File(sha256=sha256_file(path), size=path.stat().st_size)
    return dict(sorted(files.items()))


def seal(
    folder: Path,
    kind: type[Artifact],
    *,
    stage: str = "",
    parameters: dict[str, Any] | None = None,
    code_version: str = "",
    inputs: dict[str, str] | None = None,
    skipped: str | None = None,
) -> Manifest:
    """Check the form of the payload, hash every file of `folder`, then write `artifact.json`.

    Raises ArtifactError that names the file by which the folder is not an artifact of this kind.
    """
    files = hash_folder(folder)
    check_payload(folder, [name for name in files if is_payload(name)], kind.__name__, kind.schema)
    manifest = Manifest(
        type=kind.__name__,
        digest=content_digest(files, kind.__name__, skipped),
        skipped=skipped,
        stage=stage,
        parameters=parameters or {},
        code_version=code_version,
        inputs=inputs or {},
        files=files,
    )
    temporary = folder / f".{MANIFEST}.partial"
    temporary.write_text(json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")
    temporary.replace(folder / MANIFEST)
    return manifest


def copy_payload(source: Path, target: Path) -> None:
    """Copy an artifact's files, without its manifest, into an existing folder."""
    for path in sorted(source.iterdir()):
        if path.name != MANIFEST:
            shutil.copy(path, target / path.name)


def image_count(folder: Path) -> int | None:
    """Count the images of an ImageSet, LabelSet or FeatureSet; None for other kinds.

    Those of a LabelSet are the images with labels of any kind.
    """
    index, classes, objects = folder / INDEX, folder / CLASSES_FILE, folder / COCO_FILE
    if not index.is_file():
        return None
    with unreadable(index), index.open("rb") as lines:
        if not (classes.is_file() or objects.is_file()):
            return sum(1 for _ in lines)
        keys = {json.loads(line)["key"] for line in lines}
    if classes.is_file():
        with unreadable(classes), classes.open(newline="", encoding="utf-8") as stream:
            keys |= {row["key"] for row in csv.DictReader(stream)}
    if objects.is_file():
        with unreadable(objects):
            keys |= {image["file_name"] for image in json.loads(objects.read_text(encoding="utf-8"))["images"]}
    return len(keys)


def is_artifact(folder: Path) -> bool:
    """Say whether `folder` has an `artifact.json`, valid or not."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path, kind: type[Artifact] | None = None) -> Manifest:
    """Read `artifact.json` and check the kind, not the contents.

    Raises ArtifactError where there is none, where it cannot be understood, or where it is of another kind.
    """
    path = folder / MANIFEST
    if not path.is_file():
        problem = "no such folder" if not folder.is_dir() else f"no {MANIFEST} in it, so it is no finished artifact"
        raise ArtifactError(f"{folder}: {problem}; run the stage that makes it again")
    return parse_manifest(path.read_bytes(), str(folder), kind)


def parse_manifest(text: bytes, where: str, kind: type[Artifact] | None = None) -> Manifest:
    """Parse the contents of an `artifact.json`; errors as of `read_manifest`.

    where: folder or uri of the artifact, for messages.
    """
    path = f"{where}/{MANIFEST}"
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ArtifactError(
            f"{path}: not a readable manifest ({type(error).__name__}); make the artifact again"
        ) from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path}: schema version {manifest.schema_version}, this program reads {SCHEMA_VERSION}; make it again"
        )
    if kind is not None and manifest.type != kind.__name__:
        raise ArtifactError(
            f"{where}: {with_article(kind.__name__)} is needed here, this one's type is {manifest.type}; give another"
        )
    return manifest


def verify(folder: Path, kind: type[Artifact] | None = None, hashes: dict[str, str] | None = None) -> Manifest:
    """Read the manifest, hash every file against it, and check the form of the payload.

    hashes: name -> sha256 of files that were hashed a moment ago.
    Raises ArtifactError that names the first file that is missing, changed, not listed, or of no such artifact.
    """
    manifest = read_manifest(folder, kind)
    _refuse_links(folder)
    for name, expected in manifest.files.items():
        _verify_file(folder, name, expected, (hashes or {}).get(name, ""))
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    if extra := sorted(present - set(manifest.files)):
        raise ArtifactError(f"{folder / extra[0]}: not listed in {MANIFEST}; {_REMEDY}")
    if content_digest(manifest.files, manifest.type, manifest.skipped) != manifest.digest:
        raise ArtifactError(f"{folder / MANIFEST}: its digest does not match its file list; {_REMEDY}")
    if manifest.type not in ARTIFACT_KINDS:
        raise ArtifactError(
            f"{folder / MANIFEST}: type {manifest.type!r} is not one of {', '.join(ARTIFACT_KINDS)}; {_REMEDY}"
        )
    payload = [name for name in manifest.files if is_payload(name)]
    check_payload(folder, payload, manifest.type, ARTIFACT_KINDS[manifest.type].schema)
    return manifest


def _refuse_links(folder: Path) -> None:
    """Raise ArtifactError for a symbolic link to a file or to a folder: what it leads to may change."""
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise ArtifactError(f"{path}: a symbolic link, which an artifact must not hold; {_REMEDY}")


def _verify_file(folder: Path, name: str, expected: File, sha256: str) -> None:
    """Raise ArtifactError where a listed file differs. sha256: where it is known already, else empty."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ArtifactError(f"{folder / MANIFEST}: lists {name!r}, which is outside the folder; {_REMEDY}")
    if not path.is_file():
        raise ArtifactError(f"{path}: missing, but listed in {MANIFEST}; {_REMEDY}")
    if path.stat().st_size != expected.size:
        raise ArtifactError(f"{path}: {path.stat().st_size} bytes, {MANIFEST} says {expected.size}; {_REMEDY}")
    if (sha256 or sha256_file(path)) != expected.sha256:
        raise ArtifactError(f"{path}: its contents differ from {MANIFEST} (sha256); {_REMEDY}")
