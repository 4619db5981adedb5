"""YAML files of people: documents are read, and what is no such file ends in one line and exit code 2."""

import json
import os

import pytest

from pipelines import cli
from pipelines.ir.yaml_file import MAX_DEPTH, read_yaml
from shared.system.errors import UsageError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


def test_documents_and_aliases(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &x {b: [1, 2]}\nc: *x\nd: *x\n---\n- 2026-11-30\n---\n")
    assert [str(one) for one in read_yaml(path, "a")] == [
        "{'a': {'b': [1, 2]}, 'c': {'b': [1, 2]}, 'd': {'b': [1, 2]}}",
        "[datetime.date(2026, 11, 30)]",
        "None",
    ]
    path.write_text("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    read_yaml(path, "a")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested more than 100 deep"),
        ("[" * 200_000, "nested more than 100 deep"),
        ("".join(f"{' ' * i}a:\n" for i in range(200)), "nested more than 100 deep"),
        (BOMB, "stands for more than 1,000,000 values"),
        ("a: &a [*a]", "stands for more than 1,000,000 values"),
        (json.dumps({"annotations": [[1, 2]] * 4_000_000}), "MB, more than such a file has"),
        ("a: 2026-99-99", "not YAML"),
        ("a: !!python/object/apply:os.system [x]", "not YAML"),
        ("a: \x00", "not YAML"),
        ("a: [", "not YAML"),
        ("*a", "not YAML"),
    ],
)
def test_what_is_refused(text, reason, tmp_path, capsys):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"^the file: .*{reason}"):
        read_yaml(path, "the file")
    for words in (["run", str(path)], ["run", "label_free", "--config", str(path)], ["lint", str(path)]):
        assert cli.main(words) == 2, words
        errors = capsys.readouterr().err
        assert reason in errors and errors.count("\n") == 1


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for name in ("pipe.yaml", "absent.yaml"):
        with pytest.raises(UsageError, match=r"^x: (not a regular file|No such file)"):
            read_yaml(tmp_path / name, "x")
