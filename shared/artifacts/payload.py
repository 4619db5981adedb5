"""Check that an artifact's files have the form of its kind, at little cost: names, keys and signatures.

`shared.artifacts.kinds` declares the form of each kind. Readers check the contents line by line.
Every declaration imports this module, so it loads no numpy.
"""

import contextlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shared.system.errors import ArtifactError, UserError

INDEX = "index.jsonl"
CLASSES_FILE, COCO_FILE = "classes.csv", "annotations.coco.json"
"""Files of a LabelSet: the class of each image; its objects, as COCO has them."""
SIGNATURES = {".tar": (257, b"ustar"), ".npy": (0, b"\x93NUMPY"), ".safetensors": (8, b"{")}
"""Ending of a file -> (offset, bytes) by which the format is recognised."""


@dataclass(frozen=True)
class PayloadSchema:
    """The form of one kind's payload."""

    required: tuple[str, ...] = ()
    """Names of files that every artifact of the kind holds, empty sets and skipped ones included."""
    optional: str | None = None
    """Regular expression that the names of all other files match, "" for no others; None: any file."""
    index_keys: tuple[str, ...] = ()
    """Keys that a line of `index.jsonl` has."""
    json_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """JSON file -> keys that it has."""


def with_article(kind: str) -> str:
    """`a Model`, `an ImageSet`."""
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind}"


def check_payload(folder: Path, names: Collection[str], kind: str, schema: PayloadSchema) -> None:
    """Raise ArtifactError that names the first file by which the folder is no artifact of this kind.

    names: the payload files, relative to `folder`; kind: its name, for the message.
    """
    if missing := [name for name in schema.required if name not in names]:
        raise ArtifactError(
            f"{folder / missing[0]}: missing, {with_article(kind)} always holds it; make the artifact again"
        )
    if schema.optional is not None:
        for name in sorted(names):
            if name not in schema.required and not re.fullmatch(schema.optional, name):
                raise ArtifactError(
                    f"{folder / name}: not a file of {with_article(kind)}; "
                    "remove it, or give the artifact its true kind"
                )
            _check_signature(folder / name)
    if schema.index_keys:
        with (folder / INDEX).open("rb") as lines:
            first = lines.readline()
        if first:  # an empty set has no line
            _check_keys(folder / INDEX, first, schema.index_keys, kind)
    for name, keys in schema.json_keys.items():
        _check_keys(folder / name, (folder / name).read_bytes(), keys, kind)


@contextlib.contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Raise ArtifactError that names a file of an artifact where reading it fails in any other way."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror or error}; make the artifact again") from error
    except Exception as error:  # parsers and decoders raise errors of many types
        text = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"{path}: not readable ({type(error).__name__}: {text}); make the artifact again"
        ) from error


def _check_signature(path: Path) -> None:
    """Raise ArtifactError where the file is not of the format that its name ends in."""
    offset, expected = SIGNATURES.get(path.suffix, (0, b""))
    with path.open("rb") as stream:
        stream.seek(offset)
        found = stream.read(len(expected))
    if found != expected:
        raise ArtifactError(f"{path}: not a {path.suffix} file; make the artifact again")


def _check_keys(path: Path, text: bytes, keys: tuple[str, ...], kind: str) -> None:
    """Raise ArtifactError where the text is no JSON object with these keys."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not readable as JSON; make the artifact again") from error
    if lacking := [key for key in keys if not isinstance(found, dict) or key not in found]:
        raise ArtifactError(
            f"{path}: no {lacking[0]!r} in it, so this is not {with_article(kind)}; give the artifact its true kind"
        )
