"""Rules that hold for every stage."""

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from components.registry import declaration, names, targets
from shared.stage.arguments import parse
from shared.stage.declaration import Result, Stage, port_of
from shared.stage.executor_input import from_executor_input
from shared.stage.wire import parameter_type, plain_type, to_wire

ROOT = Path(__file__).parents[1]
HEAVY = ("numpy", "torch", "cv2", "kfp", "timm", "scipy", "skimage", "transformers")
METRIC = re.compile(r"[a-z][a-z0-9_]*")


@pytest.fixture(params=names())
def stage(request) -> type[Stage]:
    return declaration(request.param)


def choices(field) -> tuple:
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def any_value(field) -> str:
    """A value of a required parameter."""
    return str((*choices(field), "given")[0])


def python(code: str) -> str:
    """Return the output of a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_every_folder_is_a_stage():
    folders = {path.parent.name for path in (ROOT / "components").glob("*/*.py")}
    assert folders == set(names()) and len(folders) > 1


def test_the_folder_is_named_for_the_stage(stage):
    assert Path(sys.modules[stage.__module__].__file__).parent.name == stage.slug()


def test_every_field_is_documented(stage):
    assert stage.__doc__ and stage.__doc__ != Stage.__doc__
    bare = [name for name, field in stage.model_fields.items() if not (field.description or "").strip()]
    assert not bare


def test_the_images_are_docker_targets(stage):
    lines = (ROOT / "docker/Dockerfile").read_text().splitlines()
    built = {words[3] for line in lines if (words := line.split())[:1] == ["FROM"] and words[2:3] == ["AS"]}
    assert set(targets(stage)) <= built
    for target in targets(stage):
        assert (ROOT / f"requirements/{target}.lock").is_file(), "part of the stage's code version"


def test_inputs_come_first_and_are_read_only_paths(stage):
    assert stage.ports("out"), "a stage without an output computes nothing"
    for name, port in stage.ports("in").items():
        assert port.is_artifact, f"{name}: only artifacts come in; numbers are parameters"


def test_every_parameter_travels_on_a_wire(stage):
    for name, field in stage.parameters().items():
        wire = plain_type(field)
        assert wire in (str, int, float, bool, list, dict), name
        if not field.is_required():
            default = to_wire(field, field.get_default(call_default_factory=True))
            assert isinstance(json.loads(json.dumps(default)), (wire, int) if wire is float else wire), name


def test_words_beside_numbers_and_choices_are_plain_words(stage):
    for name, field in stage.parameters().items():
        for word in parameter_type(field).words:
            assert re.fullmatch(r"[a-z][a-z0-9_]*|[0-9]+", word), f"{name}: {word!r}"


def test_headlines_and_curves_are_metrics_with_a_name_for_reports(stage):
    for metric, title in {**stage.headlines, **stage.curves}.items():
        assert METRIC.fullmatch(metric), metric
        assert title and title == title.strip() and len(title) <= 40, metric


def test_help_documents_every_field_and_loads_nothing_heavy(stage):
    code = (
        "import sys\nfrom components.__main__ import command_line\n"
        f"try: command_line([{stage.slug()!r}, '--help'])\n"
        f"finally: print('loaded:', [m for m in {HEAVY} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.rstrip().endswith("loaded: []")
    flat = " ".join(out.stdout.split())
    for name, field in stage.model_fields.items():
        assert f"--{name} " in flat
        assert " ".join(field.description.split()) in flat


def test_main_computes(stage):
    run = importlib.import_module(f"components.{stage.slug()}.main").run
    signature = inspect.signature(run, eval_str=True)
    assert [(parameter.name, parameter.annotation) for parameter in signature.parameters.values()] == [("stage", stage)]
    assert signature.return_annotation is Result


@pytest.mark.parametrize("name", [name for name in names() if declaration(name).image == "cpu"])
def test_stages_without_a_network_import_none(name):
    code = (
        f"import sys, importlib; importlib.import_module('components.{name}.main')\n"
        "print([m for m in ('torch', 'timm', 'transformers', 'kfp') if m in sys.modules])"
    )
    assert python(code) == "[]"


def test_every_default_and_every_choice_can_be_given_by_hand(stage, tmp_path):
    ports = [word for name, port in stage.ports().items() if port.needed for word in (f"--{name}", f"{name}-path")]
    needed = {name: any_value(field) for name, field in stage.parameters().items() if field.is_required()}
    for name, field in stage.parameters().items():
        default = () if field.is_required() else (field.get_default(call_default_factory=True),)
        for value in choices(field) or default or (needed[name],):
            text = value if isinstance(value, str) else json.dumps(value)
            words = [word for key, given in {**needed, name: text}.items() for word in (f"--{key}", given)]
            task = parse(stage, [*ports, *words])
            places = {key: tmp_path / where for key, where in task.locations.items()}
            assert getattr(stage.model_validate({**task.parameters, **places}), name) == value, name


def executor_input(stage: type[Stage], folder: Path) -> dict:
    """Return Kubeflow's executor input: every port, every parameter, numbers as JSON floats."""
    values = {}
    for name, field in stage.parameters().items():
        value = any_value(field) if field.is_required() else field.get_default(call_default_factory=True)
        values[name] = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    artifacts = {"in": {}, "out": {}}
    for name, port in stage.ports().items():
        if not port.is_value:
            artifact = {"name": f"{name}-1", "uri": str(folder / name), "type": {"schemaTitle": "system.Artifact"}}
            artifacts[port.direction][name] = {"artifacts": [artifact]}
    files = {name: {"outputFile": str(folder / name)} for name, port in stage.ports("out").items() if port.is_value}
    return {
        "inputs": {"artifacts": artifacts["in"], "parameterValues": values},
        "outputs": {
            "artifacts": artifacts["out"],
            "parameters": files,
            "outputFile": str(folder / "executor_output.json"),
        },
    }


def test_executor_input_round_trip(stage, tmp_path):
    task = from_executor_input(stage, json.dumps(executor_input(stage, tmp_path)))
    assert set(task.locations) == set(stage.ports())
    assert set(task.uris) == {name for name, port in stage.ports("out").items() if not port.is_value}
    assert task.executor_output == tmp_path / "executor_output.json"
    made = stage.model_validate({**task.parameters, **{name: Path(where) for name, where in task.locations.items()}})
    for name, field in stage.model_fields.items():
        if port_of(field):
            assert getattr(made, name) == tmp_path / name
        elif not field.is_required():
            assert getattr(made, name) == field.get_default(call_default_factory=True)
    again = stage.model_validate({**made.parameter_values(), **{n: Path(w) for n, w in task.locations.items()}})
    assert again == made


def test_unknown_keys_are_refused(stage, tmp_path):
    given = executor_input(stage, tmp_path)
    given["inputs"]["parameterValues"]["no_such_parameter"] = 1
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "components", stage.slug(), "--executor-input", json.dumps(given)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"--no_such_parameter: {stage.slug()} has no such parameter" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
