"""Code versions, in a copy of the tree: what changes them, and what does not."""

import json

import pytest


@pytest.fixture
def tree(make_tree, readme_stage):
    tree = make_tree("version")
    tree.add_stage("smooth", readme_stage["smooth"])
    tree.add_stage("other", {"__init__.py": "", "component.py": readme_stage["smooth"]["component.py"]})
    return tree


def versions(tree) -> dict[str, str]:
    return json.loads(tree.run("--versions").stdout)


def test_a_stage_has_a_version_of_its_own_code(tree):
    before = versions(tree)
    assert set(before) == {"smooth", "other"} and before["smooth"] != before["other"]
    for harmless in ("README.md", "components/smooth/notes.md", "components/smooth/.swap", "requirements/dev.lock"):
        (tree.root / harmless).write_text("words")
    assert versions(tree) == before
    (tree.root / "components/smooth/table.json").write_text("{}")
    after = versions(tree)
    assert after["smooth"] != before["smooth"] and after["other"] == before["other"]


@pytest.mark.parametrize(
    "path",
    ["shared/artifacts/image_set.py", "shared/new.py", *(f"requirements/{name}.lock" for name in ("cpu", "torch"))],
)
def test_shared_code_and_the_lock_are_part_of_every_version(tree, path):
    before = versions(tree)
    with (tree.root / path).open("a") as stream:
        stream.write("# changed\n")
    after = versions(tree)
    assert all(after[name] != before[name] for name in before)


def test_keys_of_tasks_depend_on_all_that_matters():
    from shared.stage.version import task_key

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
