"""Copy a verified model, or write an absent one."""

from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from components.import_model.component import ImportModel
from components.import_model.page import make_page
from shared.artifacts.manifest import Manifest, copy_payload, read_manifest
from shared.models.config import ModelConfig
from shared.models.files import is_absent, load_config, save_absent
from shared.models.model_source import model_at
from shared.stage.declaration import Result
from shared.system.errors import ArtifactError, UserError

_CONFIGS: dict[str, type[BaseModel]] = {
    config.model_fields["kind"].default: config for config in get_args(get_args(ModelConfig)[0])
}
"""Kind of a model -> its config class."""


def run(stage: ImportModel) -> Result:
    """Copy the model at `source`. Raises UserError where it is none, or one of another kind or version."""
    if not stage.source:
        reason = f"no {stage.kind} is given"
        save_absent(stage.model, reason)
        return Result(skipped=reason)
    with model_at(stage.source, "--source") as folder:
        config = _config(stage, folder)
        manifest = read_manifest(folder)
        copy_payload(folder, stage.model)
    return Result(page=make_page(stage.source, manifest, config), remark=_remark(stage, manifest))


def _config(stage: ImportModel, folder: Path) -> BaseModel:
    """Config of the model, which must be of the kind that is expected and of this version's form."""
    if is_absent(folder):
        why = "its stage had nothing to learn from"
        raise UserError(f"--source: {stage.source} holds no model, because {why}; leave it out, or give another")
    try:
        return load_config(folder, _CONFIGS[stage.kind])
    except ArtifactError as error:
        raise ArtifactError(f"--source: {str(error).replace(str(folder), stage.source)}") from error


def _remark(stage: ImportModel, manifest: Manifest) -> str:
    made = f" by {manifest.stage}" if manifest.stage else ""
    return f"A {stage.kind} made{made}, content digest {manifest.digest[:12]}, from {stage.source}."
