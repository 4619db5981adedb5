"""Compare names of files as people do: in one Unicode form, without the suffixes that say how an image is stored."""

import re
import unicodedata
from pathlib import PurePosixPath

_OME = re.compile(r"\.ome$", re.IGNORECASE)


def normal(path: PurePosixPath) -> PurePosixPath:
    """Return a path in Unicode's composed form (NFC): macOS stores names decomposed."""
    return PurePosixPath(unicodedata.normalize("NFC", str(path)))


def stem_of(path: PurePosixPath) -> str:
    """Return a file's name without folders, suffix and `.ome`, in NFC."""
    return _OME.sub("", normal(path).stem)
