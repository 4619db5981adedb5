"""Read tables of image classes: CSV or TSV with a column for the image and one for its class."""

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.system.errors import ImageError

TABLE_SUFFIXES = {"csv", "tsv"}
MAX_TABLE_BYTES = 2**28
"""Size above which a table is not read."""
_IMAGE_COLUMNS = (
    *("file", "filename", "filepath", "path", "image", "imagename", "imagefile", "imagepath", "imageid"),
    *("img", "imgname", "key", "id", "name"),
)
_CLASS_COLUMNS = (
    *("class", "classname", "label", "labels", "labelname", "category", "categoryname", "diagnosis"),
    *("target", "truth", "groundtruth"),
)
_SPLIT_COLUMNS = ("split", "set", "subset", "partition")
_GROUP_COLUMNS = ("group", "patient", "patientid", "slide", "slideid")


@dataclass(frozen=True)
class ClassRow:
    """One line of a table."""

    line: int
    """From 1, the header included."""
    image: str
    class_name: str
    split: str = ""
    """As it is written; empty where the table has no such column."""
    group: str = ""


@dataclass(frozen=True)
class ClassTable:
    """The lines of a table, and whether it has a header."""

    rows: list[ClassRow]
    has_header: bool


def read_class_table(path: Path) -> ClassTable:
    """Read a table with the columns image and class, in any usual wording; without a header, the first two columns.

    Encoding UTF-8, UTF-16 or that of Windows; separated by comma, semicolon or tab. Raises ImageError where it cannot
    be read.
    """
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise ImageError(f"larger than {MAX_TABLE_BYTES // 2**20} MiB, which no table of classes is")
    text = _decode(path.read_bytes())
    lines = [(number, row) for number, row in _cells(text) if any(cell.strip() for cell in row)]
    if not lines:
        raise ImageError("an empty table; write the columns image and class")
    header = [re.sub(r"[^a-z0-9]", "", cell.lower()) for cell in lines[0][1]]
    image, name = _column(header, _IMAGE_COLUMNS), _column(header, _CLASS_COLUMNS)
    if image is None and name is None and len(header) == 2:
        return ClassTable([_row(number, row, 0, 1, None, None) for number, row in lines], has_header=False)
    if image is None or name is None:
        missing = "image" if image is None else "class"
        raise ImageError(f"no column {missing} among {', '.join(lines[0][1])}; rename the header")
    split, group = _column(header, _SPLIT_COLUMNS), _column(header, _GROUP_COLUMNS)
    return ClassTable([_row(number, row, image, name, split, group) for number, row in lines[1:]], has_header=True)


def _decode(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _cells(text: str) -> list[tuple[int, list[str]]]:
    """Cells of each record, with its number from 1."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=first.count)
    try:
        return list(enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=separator), 1))
    except csv.Error as error:
        raise ImageError(f"not a table ({error})") from error


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Position of the first of `names` that the header has."""
    return next((header.index(name) for name in names if name in header), None)


def _row(number: int, cells: list[str], image: int, name: int, split: int | None, group: int | None) -> ClassRow:
    texts = [cells[i].strip() if i is not None and i < len(cells) else "" for i in (image, name, split, group)]
    return ClassRow(number, *texts)
