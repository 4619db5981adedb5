"""Output folders: delivered together or not at all, and locked while they are written."""

from pathlib import Path

import pytest

from shared.artifacts.kinds import Files
from shared.artifacts.manifest import seal, verify
from shared.stage.execution.output_folder import OutputFolder, deliver_all
from shared.system.errors import UserError


@pytest.fixture
def folders(tmp_path: Path):
    """Two opened outputs with a sealed payload each; the first replaces a finished artifact."""
    (tmp_path / "first").mkdir()
    (tmp_path / "first/text").write_text("old")
    seal(tmp_path / "first", Files)
    opened = [OutputFolder(name, tmp_path / name, overwrite=True) for name in ("first", "second")]
    for folder in opened:
        folder.open()
        (folder.partial / "text").write_text("new")
        seal(folder.partial, Files)
    yield opened
    for folder in opened:
        folder.close()


def contents(tmp_path: Path) -> dict[str, str]:
    """Return folder -> text of what is there, hidden folders included."""
    return {path.parent.name: path.read_text() for path in tmp_path.glob("*/text")}


def test_all_are_delivered_and_nothing_else_is_left(folders, tmp_path: Path) -> None:
    deliver_all(folders)
    for folder in folders:
        folder.close()
        verify(folder.target)
    assert contents(tmp_path) == {"first": "new", "second": "new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_where_one_cannot_be_delivered_the_others_are_taken_back(folders, tmp_path: Path) -> None:
    (tmp_path / "second").write_text("a file that appeared meanwhile")
    with pytest.raises(NotADirectoryError):
        deliver_all(folders)
    for folder in folders:
        folder.close()
    assert contents(tmp_path) == {"first": "old"}
    assert (tmp_path / "second").is_file() and sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_an_output_that_is_being_written_is_refused(folders, tmp_path: Path) -> None:
    other = OutputFolder("labels", tmp_path / "first", overwrite=True)
    with pytest.raises(UserError, match=r"--labels: another process is writing .*/first; wait until it ends, or give"):
        other.open()
    other.close()
    assert contents(tmp_path)[".first.partial"] == "new", "what the other process writes stays"
