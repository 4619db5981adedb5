"""Describe an exported graph within its file, so that a program that finds only the file can use it.

The fields are the `metadata_props` of an ONNX file (https://github.com/onnx/onnx/blob/main/docs/MetadataProps.md), each
as JSON under `cytoloom.FIELD`. `export.json` holds them as well, since a TensorRT engine has no place for them.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.imaging.normalise import Normalisation
from shared.models.files import CONFIG, WEIGHTS
from shared.system.errors import ArtifactError

SCHEMA_VERSION = 1
PREFIX = "cytoloom."
"""Start of the keys in `metadata_props`."""
_REMEDY = "export the model again with export_model, or run it by PyTorch"


class GraphMetadata(BaseModel):
    """What a graph computes, and from which weights it was made."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_version: int = SCHEMA_VERSION
    kind: str
    """encoder, segmentor, classifier or detector."""
    model_digest: str
    """`model_digest` of the model that it was exported from."""
    opset: int
    """Version of the ONNX operators."""
    precision: str = "float32"
    """Of the weights: float32 or int8."""
    channels: int
    """Channels of the input."""
    tile: int
    """px; side of the input that the file was compared with the weights at."""
    multiple: int | None
    """px; height and width of the input are multiples of it. None: both are `tile`."""
    outputs: tuple[str, ...]
    """Names of the outputs, in their order."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of the outputs; names of the maps of a segmentor."""
    normalisation: Normalisation
    """What maps pixel values to the input. It needs percentiles of the whole image, so it is not in the graph."""
    postprocessing: dict[str, Any]
    """The model's own, thresholds included: what of it the graph does not compute is left to the program."""
    inside: tuple[str, ...]
    """What the graph computes besides the network."""
    outside: tuple[str, ...]
    """What is left to the program."""

    def properties(self) -> dict[str, str]:
        """Return the `metadata_props`: key -> JSON."""
        fields = self.model_dump(mode="json")
        return {PREFIX + name: json.dumps(fields[name], sort_keys=True) for name in sorted(fields)}

    @classmethod
    def of(cls, properties: Mapping[str, str], path: Path) -> Self:
        """Parse the `metadata_props` of the file at `path`. Raises ArtifactError where they are not of this version."""
        try:
            fields = {key[len(PREFIX) :]: json.loads(properties[key]) for key in properties if key.startswith(PREFIX)}
        except ValueError as error:
            raise ArtifactError(f"{path}: its metadata is not readable ({error}); {_REMEDY}") from error
        return cls.parse(fields, path)

    @classmethod
    def parse(cls, fields: Mapping[str, Any], path: Path) -> Self:
        """Check fields of the file at `path`. Raises ArtifactError where they are none, or of another version."""
        if "schema_version" not in fields:
            raise ArtifactError(f"{path}: not a file that export_model wrote, it has no metadata of it; {_REMEDY}")
        if fields["schema_version"] != SCHEMA_VERSION:
            raise ArtifactError(
                f"{path}: its schema version is {fields['schema_version']}, this program reads {SCHEMA_VERSION}; "
                f"{_REMEDY}"
            )
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ArtifactError(f"{path}: metadata {field}: {first['msg']}; {_REMEDY}") from error

    def check(self, folder: Path, kind: str, path: Path) -> None:
        """Raise ArtifactError where the file at `path` was not exported from the model of this kind in `folder`."""
        if self.kind != kind:
            raise ArtifactError(f"{path}: of kind {self.kind}, the model in {folder} is of kind {kind}; {_REMEDY}")
        if self.model_digest != model_digest(folder):
            raise ArtifactError(
                f"{path}: exported from another model than the {WEIGHTS} and {CONFIG} in {folder}; {_REMEDY}"
            )


def model_digest(folder: Path) -> str:
    """Hash weights and config of a model: hex sha256. Post-processing counts, since a graph holds parts of it."""
    digest = hashlib.sha256()
    for name in (WEIGHTS, CONFIG):
        with (folder / name).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
