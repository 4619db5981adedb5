"""`tools/system_packages.sh` on machines that lack packages: PATH is a folder of programs that only note their call."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools/system_packages.sh"
NEEDED = ("make", "git", "python3", "docker", "dockerd", "iptables", "mmdebstrap", "ps", "chromium", "kubectl")
INSTALL = "apt-get install -y --no-install-recommends"


class Machine:
    """A folder that is all of PATH, and the calls of the programs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder / "bin", folder / "notes"
        self.folder.mkdir()
        self.notes.touch()
        for name in ("bash", "env", "timeout", "true"):
            (self.folder / name).symlink_to(Path(str(shutil.which(name))))
        for name in (*NEEDED, "apt-get"):
            self.add(name)

    def add(self, name: str, text: str = "") -> None:
        program = self.folder / name
        program.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.notes}\n{text}\n')
        program.chmod(0o755)

    def lacks(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink()

    def run(self, *words: str, user: int = 0) -> subprocess.CompletedProcess[str]:
        self.add("id", f"echo {user}")
        environment = {"PATH": str(self.folder), "SBIN": ""}
        return subprocess.run([SCRIPT, *words], env=environment, capture_output=True, text=True, timeout=20)

    def calls(self, name: str) -> list[str]:
        return [line for line in self.notes.read_text().splitlines() if line.startswith(f"{name} ")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nothing_happens_where_all_is_there(machine):
    done = machine.run(user=1000)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not machine.calls("apt-get")


def test_root_installs_what_is_missing_after_one_line(machine):
    machine.lacks("chromium", "kubectl")
    done = machine.run()
    assert done.returncode == 0
    assert done.stderr == "installing system packages: chromium kubernetes-client\n"
    assert machine.calls("apt-get") == ["apt-get update -qq", f"{INSTALL} chromium kubernetes-client -qq"]


def test_a_failed_installation_fails(machine):
    machine.lacks("chromium")
    machine.add("apt-get", "exit 100")
    assert machine.run().returncode == 100


def test_a_user_without_rights_gets_the_one_command(machine):
    machine.lacks("chromium", "git")
    done = machine.run(user=1000)
    assert done.returncode == 1 and done.stderr.rstrip().endswith(f": {INSTALL} git chromium")
    machine.add("sudo", "exit 1")  # it asks for a password
    done = machine.run(user=1000)
    assert done.returncode == 1 and done.stderr.rstrip().endswith(f": sudo {INSTALL} git chromium")
    assert not machine.calls("apt-get")


def test_sudo_installs_where_it_asks_for_no_password(machine):
    machine.lacks("chromium")
    machine.add("sudo", 'shift; exec "$@"')
    done = machine.run(user=1000)
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert machine.calls("apt-get") == ["apt-get update -qq", f"{INSTALL} chromium -qq"]


def test_a_dry_run_prints_the_command(machine):
    machine.lacks("chromium")
    done = machine.run("--dry-run")
    assert (done.returncode, done.stdout) == (0, f"{INSTALL} chromium\n") and not machine.calls("apt-get")


def test_an_engine_that_answers_needs_no_daemon_here(machine):
    machine.lacks("dockerd")
    assert machine.run("--dry-run").stdout == ""
    machine.add("docker", "exit 1")
    assert machine.run("--dry-run").stdout == f"{INSTALL} docker.io\n"


def test_single_packages_can_be_asked_for(machine):
    machine.lacks("chromium", "mmdebstrap")
    assert machine.run("--dry-run", "mmdebstrap").stdout == f"{INSTALL} mmdebstrap\n"
    done = machine.run("--dry-run", "emacs")
    assert done.returncode == 1 and "emacs: " in done.stderr


def test_elsewhere_than_on_debian_it_warns_and_lets_the_tests_run(machine):
    machine.lacks("apt-get", "chromium")
    done = machine.run(user=1000)
    assert done.returncode == 0 and done.stderr.startswith("warning: ") and "chromium" in done.stderr


def test_make_test_checks_the_packages_before_anything_else():
    command = ["make", "--no-print-directory", "--dry-run", "test"]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[0] == "tools/system_packages.sh"
