"""`cytoloom predict`: apply models to images, in this process, and leave one folder of files and a page."""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.registry import declaration
from components.registry import run as compute
from pipelines.model_locations import find_models
from shared.artifacts.kinds import Files
from shared.artifacts.manifest import is_artifact, read_manifest, seal, verify
from shared.stage.arguments import from_text
from shared.stage.declaration import Result
from shared.stage.error_messages import describe
from shared.stage.invocation import Invocation
from shared.stage.runner import execute
from shared.stage.wire import plain_type
from shared.system.devices import library_threads, threads
from shared.system.errors import ArtifactError, UserError
from shared.system.log import log, set_up_logging
from shared.system.suggestions import alternatives

PAGE = "report.html"
_STAGE = "infer"
_FLAGS = {"--images": "--source", "--files": "--out", "--target_error": "--target-error"}
"""Flags of the stage -> flags of this command, which a user has seen."""
_MODEL_FLAGS = ("--classifier: ", "--detector: ", "--segmentor: ")


def predict(args: argparse.Namespace) -> int:
    """Check the command, predict, print what was found and where it is. Returns the exit code."""
    parameters = _parameters(args)
    models = find_models(args.models)
    if "://" not in args.source and not Path(args.source).exists():
        raise UserError(f"--source: {args.source}: no such file or folder")
    overwrite = _is_earlier_result(args.out)
    for kind, place in models.items():
        print(f"{kind}: {place}", file=sys.stderr)
    _prepare_process()
    with tempfile.TemporaryDirectory(prefix="cytoloom-") as temporary:
        aside = {"predictions": f"{temporary}/predictions", "report": f"{temporary}/{PAGE}"}
        locations = {**models, "images": args.source, "files": str(args.out), **aside}
        result = _in_words(lambda: execute(Invocation(declaration(_STAGE), locations, parameters, overwrite), compute))
        _add_page(Path(aside["report"]), args.out)
    print(_summary(result, args.out))
    return 0


def _parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Parameter of the stage -> value. Raises UserError for one that there is not."""
    fields = declaration(_STAGE).parameters()
    given = {"runtime": args.runtime, "target_error": args.target_error, "positive": args.positive}
    texts = {name: text for name, text in given.items() if text is not None}
    for setting in args.settings:
        name, equals, text = setting.partition("=")
        if name not in fields:
            raise UserError(f"--set {name}: no such setting{alternatives(name, fields)}")
        if not equals:
            raise UserError(f"--set {name}: no value; write --set {name}=VALUE")
        texts[name] = text
    return {name: from_text(plain_type(fields[name]), text) for name, text in texts.items()}


def _is_earlier_result(out: Path) -> bool:
    """Say whether an earlier call wrote this folder, and nobody changed it. Raises UserError for any other content."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not out.is_dir():
        raise UserError(f"--out: {out} is a file; give a folder")
    if not is_artifact(out):
        raise UserError(f"--out: {out} is not empty and no earlier result; give another folder")
    manifest = read_manifest(out)
    if (manifest.type, manifest.stage) != (Files.__name__, _STAGE):
        raise UserError(f"--out: {out} holds a {manifest.type}, no earlier result; give another folder")
    try:
        verify(out)
    except ArtifactError as error:
        problem = str(error).partition(";")[0]
        raise UserError(f"--out: {out} was changed since it was written ({problem}); give another folder") from error
    return True


def _prepare_process() -> None:
    """Set what libraries read when they are loaded, and log problems alone: progress has lines of its own."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in shared.stage.runner
    os.environ.update(library_threads(threads()))
    set_up_logging("predict")
    log.setLevel(logging.WARNING)


def _in_words(call: Callable[[], Result]) -> Result:
    """Compute, and let errors name the arguments of this command."""
    try:
        return call()
    except (UserError, ValidationError) as error:
        message = describe(error, declaration(_STAGE))
        for theirs, ours in _FLAGS.items():
            message = message.replace(theirs, ours)
        for flag in _MODEL_FLAGS:
            message = message.removeprefix(flag)
        raise UserError(message) from error


def _add_page(page: Path, out: Path) -> None:
    """Move the page into the folder, and list it in the manifest."""
    manifest = read_manifest(out)
    shutil.move(page, out / PAGE)
    known = manifest.model_dump(include={"stage", "parameters", "code_version", "inputs", "skipped"})
    seal(out, Files, **known)


def _summary(result: Result, out: Path) -> str:
    """What was found, and the files."""
    counts = {name: round(value) for name, value in result.metrics.items()}
    lines = [f"{counts.get('images', 0)} images predicted"]
    if "positive" in counts:
        lines.append(f"{counts['positive']} positive, {counts['negative']} negative, {counts['abstain']} abstained")
    lines += [f"{counts[name]} {name} found" for name in ("boxes", "cells") if name in counts]
    files = sorted(f"{path.name}/" if path.is_dir() else path.name for path in out.iterdir() if path.name != PAGE)
    shown = [name for name in files if name != "artifact.json"]
    text = "; ".join(lines) + "."
    text += f" {result.remark}" if result.remark else ""
    return f"{text}\n{out / PAGE}\nand in {out}: {', '.join(shown)}"
