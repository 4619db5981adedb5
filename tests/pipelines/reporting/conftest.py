"""A finished run that the tests of all pages share; they change copies of it."""

from pathlib import Path

import pytest
from finished_run import finished_run

from pipelines.run_folder.record import RunRecord


@pytest.fixture(scope="session")
def finished(tmp_path_factory, nuclei) -> tuple[Path, RunRecord]:
    """Its folder and its record."""
    run = tmp_path_factory.mktemp("runs") / "small <run>"
    return run, finished_run(run, nuclei)
