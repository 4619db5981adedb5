"""Code versions, in a copy of the tree: what changes them, and what does not."""

import json

import pytest

from components.registry import declaration, names
from shared.stage.version import task_key

SEGMENTATION = ("train_segmentor", "select_model", "evaluate", "infer", "export_model")


@pytest.fixture
def tree(make_tree, readme_stage):
    tree = make_tree("version")
    tree.add_stage("smooth", readme_stage["smooth"])
    other = readme_stage["smooth"]["component.py"].replace("class Smooth", "class Other")
    tree.add_stage("other", {"__init__.py": "", "component.py": other})
    return tree


def versions(tree) -> dict[str, str]:
    done = tree.run("--versions")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def changed(tree, path: str) -> set[str]:
    """Stages that have another version once the file has a line more."""
    before = versions(tree)
    with (tree.root / path).open("a") as stream:
        stream.write("# changed\n")
    after = versions(tree)
    return {name for name in before if after[name] != before[name]}


def test_a_stage_has_a_version_of_its_own_code(tree):
    before = versions(tree)
    assert set(before) == {"smooth", "other"} and before["smooth"] != before["other"]
    for harmless in ("README.md", "components/smooth/notes.md", "components/smooth/.swap", "requirements/dev.lock"):
        (tree.root / harmless).write_text("words")
    assert versions(tree) == before
    (tree.root / "components/smooth/table.json").write_text("{}")
    after = versions(tree)
    assert after["smooth"] != before["smooth"] and after["other"] == before["other"]


@pytest.mark.parametrize("path", ["shared/stage/declaration.py", "shared/artifacts/kinds.py", "requirements/cpu.lock"])
def test_what_a_declaration_imports_and_the_lock_of_its_image_are_part_of_the_version(tree, path):
    assert changed(tree, path) == {"smooth", "other"}


@pytest.mark.parametrize(
    "path",
    ["shared/stage/runner.py", "shared/new.py", "components/__main__.py", "requirements/torch.lock"],
)
def test_what_a_stage_does_not_import_is_no_part_of_its_version(tree, path):
    assert changed(tree, path) == set()


@pytest.fixture(scope="module")
def whole_tree(make_tree):
    tree = make_tree("whole")
    tree.add_stages()
    return tree


def test_instances_rerun_neither_ingest_nor_pretrain(whole_tree):
    stages = changed(whole_tree, "shared/instances/postprocess.py")
    assert stages >= set(SEGMENTATION)
    assert not stages & {"ingest", "cluster", "pretrain"}


SPLITTING = {"__init__", "watershed", "basins", "bin_packing", "distance", "label_image", "pale_centres"}
"""Modules of `shared.instances` by which proposals are assessed."""


def test_of_instances_only_the_splitting_is_part_of_pretrain(whole_tree):
    others = [path for path in (whole_tree.root / "shared/instances").rglob("*.py") if path.stem not in SPLITTING]
    assert {"postprocess", "border_refinement", "border_contrast", "object_filters"} <= {path.stem for path in others}
    for path in sorted(others):
        path.write_text(path.read_text() + "# changed as well\n")
    before = {name: version for name, version in versions(whole_tree).items() if name in ("ingest", "pretrain")}
    for path in others:
        path.write_text(path.read_text() + "# and once more\n")
    after = versions(whole_tree)
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("stage", ["evaluate", "ingest"])
def test_a_page_reruns_the_stage_that_owns_it(whole_tree, stage):
    assert changed(whole_tree, f"components/{stage}/page.py") == {stage}


def test_the_reader_of_image_files_is_part_of_ingest_alone(whole_tree):
    assert changed(whole_tree, "shared/readers/decode/raster.py") == {"ingest"}


def test_a_lock_file_is_part_of_the_stages_that_run_with_it(whole_tree):
    targets = {name: (declaration(name).image, declaration(name).gpu_image) for name in names()}
    assert changed(whole_tree, "requirements/torch.lock") == {name for name in targets if "torch" in targets[name]}
    assert changed(whole_tree, "requirements/faiss.lock") == {"cluster"}


def test_keys_of_tasks_depend_on_all_that_matters():
    base = ("cluster", {"k": 3, "seed": 0}, {"images": "abc"}, "v1")
    key = task_key(*base)
    assert task_key("cluster", {"seed": 0, "k": 3}, {"images": "abc"}, "v1") == key
    others = [
        ("pretrain", *base[1:]),
        ("cluster", {"k": 4, "seed": 0}, *base[2:]),
        ("cluster", base[1], {"images": "abd"}, "v1"),
        ("cluster", base[1], {"image": "abc"}, "v1"),
        (*base[:3], "v2"),
    ]
    assert len({key, *(task_key(*other) for other in others)}) == 6
