"""Names from elsewhere are shown as they are, and can do nothing."""

import csv
import io
import logging

import pytest

from shared.system.log import log, set_up_logging
from shared.system.names import cell, cells, from_cell, visible, visible_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a.tif", "a.tif"),
        ("Zürich µm 細胞.tif", "Zürich µm 細胞.tif"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("abc\u202efit.exe", "abc\\u202efit.exe"),
        ("a\u2028b\u200bc\ufeff", "a\\u2028b\\u200bc\\ufeff"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_what_cannot_be_seen_is_escaped(text, shown):
    assert visible(text) == shown


def test_a_message_keeps_its_lines():
    assert visible_lines("none of 2:\n  a\x1b.tif:\tbroken") == "none of 2:\n  a\\x1b.tif:\tbroken"


def test_the_log_escapes(capsys):
    set_up_logging("ingest")
    log.warning("rejected %s: %s", "a\x1b]0;x\x07.tif", "broken")
    assert "a\\x1b]0;x\\x07.tif" in capsys.readouterr().err
    assert isinstance(log.handlers[0], logging.StreamHandler)


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", '=HYPERLINK("http://x")'])
def test_formulas_become_text_and_can_be_read_back(text):
    stream = io.StringIO()
    csv.writer(stream).writerow([cell(text)])
    (read,) = next(csv.reader(io.StringIO(stream.getvalue())))
    assert read == f"'{text}" and from_cell(read) == text


@pytest.mark.parametrize("value", ["-0.5", "+3", "-1e-7", -2, 0.5, None, "plain", "a=b", "'quoted"])
def test_numbers_and_plain_text_stay(value):
    assert cell(value) == value and (not isinstance(value, str) or from_cell(value) == value)


def test_rows():
    assert cells({"image": "=a", "area": -3}) == {"image": "'=a", "area": -3}
