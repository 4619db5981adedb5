"""The folder of a run: who may open it, and which of its files are shown."""

import os

import pytest

from pipelines.run_folder.folder import folder_within, opened, place_graph, within
from pipelines.run_folder.record import RunRecord
from shared.system.errors import UserError


def test_a_folder_is_opened_once_at_a_time(tmp_path):
    run = tmp_path / "runs/a"
    with opened(run), pytest.raises(UserError, match=f"in use by process {os.getpid()};"), opened(run):
        pass
    with opened(run):  # it is released again
        pass


def test_the_lock_is_released_where_the_run_fails(tmp_path):
    with pytest.raises(RuntimeError), opened(tmp_path / "a"):
        raise RuntimeError
    with opened(tmp_path / "a"):
        pass


def test_a_folder_with_foreign_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"--out: .*thesis.txt is in it"), opened(tmp_path):
        pass
    with pytest.raises(UserError, match="is a file"), opened(tmp_path / "thesis.txt"):
        pass
    RunRecord(pipeline="x").save(tmp_path)
    with opened(tmp_path):
        pass


def test_what_a_run_that_was_killed_early_left_alone_is_no_obstacle(tmp_path):
    graph = tmp_path / "graph.yaml"
    graph.write_text("compiled")
    run = tmp_path / "run"
    with opened(run):
        assert place_graph(graph, run).read_text() == "compiled"
    (run / ".run.json.partial-1").touch()
    with opened(run):
        pass


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "link", "linked/secret", "loop", "a\0b"])
def test_no_path_leads_out_of_a_run(tmp_path, path):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "secret").write_text("secret")
    (run / "link").symlink_to(tmp_path / "secret")
    (run / "linked").symlink_to(tmp_path)
    (run / "loop").symlink_to(run / "loop")
    assert within(run, "ordinary") == run / "ordinary"
    with pytest.raises(UserError):
        within(run, path)


def test_no_link_inside_a_folder_leads_out(tmp_path):
    run = tmp_path / "run"
    (run / "images").mkdir(parents=True)
    (run / "other.tar").touch()
    (run / "images/inside.tar").symlink_to(run / "other.tar")
    assert folder_within(run, "images") == (run / "images").resolve()
    (run / "images/outside.tar").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError):
        folder_within(run, "images")
