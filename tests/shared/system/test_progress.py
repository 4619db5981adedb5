import os
import pty
import subprocess
import sys
from pathlib import Path

from shared.system.progress import Progress, track

ROOT = Path(__file__).parents[3]


def test_items_pass_through_and_the_end_is_reported(capsys):
    assert list(track(iter("abc"), "copy", 3)) == ["a", "b", "c"]
    line = capsys.readouterr().err
    assert line.startswith("copy: 3/3 images, ") and line.endswith("/s\n") and "left" not in line


def test_a_log_gets_few_lines(capsys):
    progress = Progress("train", 10_000, unit="steps", done=500)
    for step in range(501, 2000):
        progress.update(step, "loss 0.5")
    assert capsys.readouterr().err == "", "the first line comes after 5 s"
    progress.finish("loss 0.5")
    line = capsys.readouterr().err
    assert line.startswith("train: 1999/10000 steps, ") and line.endswith(" s left, loss 0.5\n")


def test_a_terminal_gets_one_line_redrawn():
    code = "from shared.system.progress import track\nfor _ in track(range(3), 'x', 3): pass"
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=theirs, check=True)
    os.close(theirs)
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    assert text.count("\r\x1b[2Kx: ") >= 2 and text.count("\n") == 1 and "x: 3/3 images" in text
