"""Read YAML files that people hand in, within limits that every real one keeps.

The parser's events are counted before anything is built of them: a file of a few bytes can stand for endless nesting,
or, by aliases of aliases, for more values than fit into the memory.
"""

from pathlib import Path
from typing import Any

import yaml

from shared.system.errors import UsageError

MAX_BYTES = 16 * 2**20
"""Size of a file; the largest compiled graph has less than 1 MB."""
MAX_DEPTH = 100
"""Lists and mappings within one another."""
MAX_VALUES = 1_000_000
"""Values, each alias counting as all that it stands for."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, named: str) -> list[Any]:
    """Return the documents of a file. named: how messages name it, such as `--config: settings.yaml`.

    Raises UsageError where it cannot be read, is not YAML, or exceeds a limit.
    """
    try:
        if not path.is_file():
            raise UsageError(f"{named}: {'not a regular file' if path.exists() else 'No such file or directory'}")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UsageError(f"{named}: {size / 1e6:.0f} MB, more than such a file has; give the right file")
        data = path.read_bytes()
        _check_extent(data, named)
        return list(yaml.load_all(data, Loader=_LOADER))
    except OSError as error:
        raise UsageError(f"{named}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # such as dates that do not exist
        raise UsageError(f"{named}: not YAML ({' '.join(str(error).split())[:300]})") from error


def _check_extent(data: bytes, named: str) -> None:
    """Raise UsageError where a file is nested too deeply, or its aliases stand for too much."""
    anchors: dict[str, int] = {}
    """Anchor -> number of values that it stands for."""
    open_nodes: list[tuple[str | None, int]] = []
    """Anchor of each open list or mapping, and the number of values before it."""
    values = 0
    for event in yaml.parse(data, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            values += anchors.get(event.anchor or "", 0)
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if event.anchor is not None:
                anchors[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            values += 1
            open_nodes.append((event.anchor, values))
            if event.anchor is not None:
                anchors[event.anchor] = MAX_VALUES  # until it ends: an alias within would be endless
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                anchors[anchor] = values - before + 1
        if len(open_nodes) > MAX_DEPTH:
            raise UsageError(f"{named}: nested more than {MAX_DEPTH} deep, which no such file is; give the right file")
        if values > MAX_VALUES:
            raise UsageError(f"{named}: stands for more than {MAX_VALUES:,} values; give the right file")
