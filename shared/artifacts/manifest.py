"""Artifacts: folders of a few large files, sealed by `artifact.json`.

`artifact.json` is written last. A folder without it, or with files that differ from it, is not an artifact.
This module is imported by every declaration, so it loads no numpy.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.artifacts.kinds import Artifact, Model
from shared.system.errors import ArtifactError

MANIFEST = "artifact.json"
SCHEMA_VERSION = 1
NOT_PAYLOAD = {MANIFEST, "MODEL_CARD.md", "report.html"}
"""Files beside the payload: they describe it and do not count in its digest (nor does any `*.log`)."""


class File(BaseModel):
    """One payload file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str
    size: int
    """Bytes."""


class Manifest(BaseModel):
    """The contents of `artifact.json`: what the folder holds and where it comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: str
    schema_version: int = SCHEMA_VERSION
    digest: str
    """sha256 over the payload's paths and hashes: equal contents, equal digest."""
    skipped: str | None = None
    """Why the stage passed through without computing; None when it computed."""
    stage: str = ""
    parameters: dict[str, Any] = {}
    code_version: str = ""
    inputs: dict[str, str] = {}
    """Input name -> content digest."""
    files: dict[str, File] = {}


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_payload(name: str) -> bool:
    """Whether a file of an artifact counts in its digest."""
    return Path(name).name not in NOT_PAYLOAD and not name.endswith(".log")


def content_digest(files: dict[str, File], kind: str = "", skipped: str | None = None) -> str:
    """Hash of the payload files' paths and sha256, independent of where the folder is.

    What was skipped is told from what is empty. A model that a skipped stage handed on is the same model: whoever
    scored it need not do so again.
    """
    payload = [[name, files[name].sha256] for name in sorted(files) if is_payload(name)]
    text = json.dumps([payload, bool(skipped) and kind != Model.__name__], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hash_folder(folder: Path) -> dict[str, File]:
    """Relative posix path -> hash and size of every file below `folder`, without the manifest itself.

    Raises ArtifactError for anything that is neither a plain file nor a folder: links could lead out of it.
    """
    files = {}
    for root, dirs, names in os.walk(folder):
        for name in sorted(dirs + names):
            if (Path(root) / name).is_symlink():
                raise ArtifactError(f"{Path(root) / name}: an artifact must not hold symbolic links")
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
    """Hash every file of `folder`, then write `artifact.json`: from now on the folder is an artifact."""
    files = hash_folder(folder)
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
    """Copy an artifact's files, without its manifest, into a folder that is there."""
    for path in sorted(source.iterdir()):
        if path.name != MANIFEST:
            shutil.copy(path, target / path.name)


def image_count(folder: Path) -> int | None:
    """How many images a set is of, features and labels of images included; None where the artifact is no set."""
    index = folder / "index.jsonl"
    if not index.is_file():
        return None
    with index.open("rb") as lines:
        return sum(1 for _ in lines)


def is_artifact(folder: Path) -> bool:
    """Whether `folder` claims to be an artifact, true or not: it has an `artifact.json`."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path, kind: type[Artifact] | None = None) -> Manifest:
    """Read `artifact.json` and check the kind, not the contents.

    Raises ArtifactError where there is none, where it cannot be understood, or where it is of another kind.
    """
    path = folder / MANIFEST
    if not path.is_file():
        what = "no such folder" if not folder.is_dir() else f"no {MANIFEST} in it, so it is no finished artifact"
        raise ArtifactError(f"{folder}: {what}; run the stage that makes it again")
    return parse_manifest(path.read_bytes(), str(folder), kind)


def parse_manifest(text: bytes, where: str, kind: type[Artifact] | None = None) -> Manifest:
    """Understand what `artifact.json` at `where` (a folder, a uri) says; errors as of `read_manifest`."""
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
        need = f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"
        raise ArtifactError(f"{where}: {need} is needed here, this one's type is {manifest.type}")
    return manifest


def verify(folder: Path, kind: type[Artifact] | None = None, hashes: dict[str, str] | None = None) -> Manifest:
    """Read the manifest and hash every file against it.

    hashes: name -> sha256 of files that were hashed a moment ago.
    Raises ArtifactError that names the first file that is missing, changed, or not listed.
    """
    manifest = read_manifest(folder, kind)
    remedy = "fetch it or make it again"
    for name, expected in manifest.files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ArtifactError(f"{folder / MANIFEST}: it lists {name!r}, which is outside the folder; {remedy}")
        if path.is_symlink():
            raise ArtifactError(f"{path}: a symbolic link, which an artifact must not hold; {remedy}")
        if not path.is_file():
            raise ArtifactError(f"{path}: missing, but listed in {MANIFEST}; {remedy}")
        if path.stat().st_size != expected.size:
            raise ArtifactError(f"{path}: {path.stat().st_size} bytes, {MANIFEST} says {expected.size}; {remedy}")
        if ((hashes or {}).get(name) or sha256_file(path)) != expected.sha256:
            raise ArtifactError(f"{path}: its contents differ from {MANIFEST} (sha256); {remedy}")
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MANIFEST}
    if extra := sorted(present - set(manifest.files)):
        raise ArtifactError(f"{folder / extra[0]}: not listed in {MANIFEST}; {remedy}")
    if content_digest(manifest.files, manifest.type, manifest.skipped) != manifest.digest:
        raise ArtifactError(f"{folder / MANIFEST}: its digest does not match its file list; {remedy}")
    return manifest
