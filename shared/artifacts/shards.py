"""Write deterministic tar shards with random access: equal members give equal bytes.

A shard is a POSIX ustar file, as WebDataset reads it (https://github.com/webdataset/webdataset): members of one sample
share their name up to the first dot. An index (`index.jsonl`) beside the shards holds the position of each member.
"""

import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from shared.system.errors import ArtifactError

SHARD_BYTES = 256 * 2**20
"""Size from which a new shard is started."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
M = TypeVar("M", bound=BaseModel)


class Member(BaseModel):
    """Position of a tar member's data."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    shard: str
    """File name, relative to the artifact."""
    offset: NonNegativeInt
    """Bytes from the start of the shard to the member's data."""
    size: NonNegativeInt
    """Bytes."""


class ShardWriter:
    """Append members to `PREFIX-00000.tar`, `PREFIX-00001.tar`, ... in `folder`.

    Names must ascend, so that equal contents give equal shards.
    """

    def __init__(self, folder: Path, prefix: str = "shard", shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.prefix, self.shard_bytes = folder, prefix, shard_bytes
        self._tar: tarfile.TarFile | None = None
        self._shard, self._count, self._last = "", 0, ""

    def add(self, name: str, data: bytes) -> Member:
        """Append one member; start a new shard where this one is full."""
        if name.split(".") <= self._last.split("."):  # by key: "a" before "a-b", although "." sorts after "-"
            raise ValueError(f"member {name!r} after {self._last!r}: members must be added in ascending order")
        if not _PLAIN_NAME.fullmatch(name) or len(name) > 100:
            raise ValueError(f"{name!r}: a member's name is up to 100 letters, digits, '.', '_' and '-'")
        if self._tar is None or (self._tar.offset + len(data) > self.shard_bytes and self._tar.offset > 0):
            self._next_shard()
        assert self._tar is not None
        info = tarfile.TarInfo(name)  # mtime, uid, gid 0 and mode 0644 by default
        info.size = len(data)
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(info, io.BytesIO(data))
        self._last = name
        return Member(shard=self._shard, offset=offset, size=len(data))

    def _next_shard(self) -> None:
        self.close()
        self._shard = f"{self.prefix}-{self._count:05d}.tar"
        self._tar = tarfile.open(self.folder / self._shard, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self._count += 1

    def close(self) -> None:
        """Finish the current shard."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None


def read_member(folder: Path, member: Member) -> bytes:
    """Read the bytes of one member. Raises ArtifactError where the shard is missing or too short."""
    if not _PLAIN_NAME.fullmatch(member.shard):
        raise ArtifactError(f"{folder}: the index names {member.shard!r}, not a shard of this folder; make it again")
    try:
        with (folder / member.shard).open("rb") as stream:
            there = max(0, os.fstat(stream.fileno()).st_size - member.offset)
            stream.seek(min(member.offset, os.fstat(stream.fileno()).st_size))
            data = stream.read(min(member.size, there))
    except OSError as error:
        raise ArtifactError(f"{folder / member.shard}: {error.strerror}; make the artifact again") from error
    if len(data) != member.size:
        raise ArtifactError(
            f"{folder / member.shard}: ends before byte {member.offset + member.size}; make the artifact again"
        )
    return data


def check_ascending(key: str, last: str | None) -> None:
    """Raise ValueError unless `key` sorts after the key added last."""
    if last is not None and key <= last:
        raise ValueError(f"key {key!r} after {last!r}: keys must be added in ascending order")


def write_jsonl(path: Path, rows: Iterable[BaseModel]) -> None:
    """Write one JSON object per line, keys sorted."""
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(jsonl_line(row) for row in rows)


def jsonl_line(row: BaseModel) -> str:
    """Format one line."""
    return json.dumps(row.model_dump(mode="json"), sort_keys=True, ensure_ascii=False) + "\n"


def read_jsonl(path: Path, row: type[M]) -> Iterator[M]:
    """Yield the rows of a file written by `write_jsonl`. Raises ArtifactError with the number of a broken line."""
    if not path.is_file():
        raise ArtifactError(f"{path}: no such file; make the artifact again")
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield row.model_validate_json(line)
            except ValidationError as error:
                problem = error.errors()[0]["msg"]
                raise ArtifactError(f"{path}:{number}: {problem}; make the artifact again") from error
