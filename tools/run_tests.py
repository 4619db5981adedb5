"""Run the tests in several processes, each of which takes the next file that no other has taken.

`python tools/run_tests.py [OPTIONS OF PYTEST]`. There is a process for each core, up to `MAX_PROCESSES`, and each works
with one thread, so that results do not depend on the machine's cores.
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

MAX_PROCESSES = 4
"""Each takes up to 3 GB of memory."""
NO_TESTS = 5
"""Exit code of pytest where there was no test to run."""


def main() -> int:
    """Return the exit code of pytest: 0 where every process succeeded."""
    count = min(len(os.sched_getaffinity(0)), MAX_PROCESSES)
    with tempfile.TemporaryDirectory(prefix="cytoloom-tests-") as taken, ThreadPoolExecutor(count) as pool:
        codes = list(pool.map(lambda number: _run(number, taken), range(1, count + 1)))
    ran = [code for code in codes if code != NO_TESTS]
    return max(ran, default=NO_TESTS)


def _run(number: int, taken: str) -> int:
    """Run one process; print its lines with its number. `taken`: folder in which the processes note their files."""
    threads = {"CYTOLOOM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", *sys.argv[1:]]
    environment = {**os.environ, **threads, "CYTOLOOM_TESTS_TAKEN": taken}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{number}| {line}", end="", flush=True)
    return abs(process.returncode)


if __name__ == "__main__":
    sys.exit(main())
