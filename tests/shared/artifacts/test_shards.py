"""Tar shards: equal bytes for equal members, random access, and clear errors."""

import tarfile

import pytest
from pydantic import BaseModel

from shared.artifacts.shards import Member, ShardWriter, read_jsonl, read_member, write_jsonl
from shared.system.errors import ArtifactError


class Row(BaseModel):
    name: str
    number: int = 0


def write(folder, members, **options):
    folder.mkdir(exist_ok=True)
    writer = ShardWriter(folder, **options)
    found = {name: writer.add(name, data) for name, data in members}
    writer.close()
    return found


def test_members_are_read_back_by_offset_and_by_tarfile(tmp_path):
    members = [("a.png", b"1" * 700), ("b.png", b""), ("c.png", bytes(range(256)) * 9)]
    found = write(tmp_path, members)
    assert {name: read_member(tmp_path, found[name]) for name, _ in members} == dict(members)
    with tarfile.open(tmp_path / "shard-00000.tar") as tar:
        assert {info.name: tar.extractfile(info).read() for info in tar} == dict(members)
        assert {(info.mtime, info.uid, info.gid, info.mode, info.uname) for info in tar} == {(0, 0, 0, 0o644, "")}


def test_equal_members_give_equal_bytes(tmp_path):
    members = [(f"{i:03d}.bin", bytes([i]) * 1000 * i) for i in range(20)]
    write(tmp_path / "a", members, shard_bytes=20_000)
    write(tmp_path / "b", members, shard_bytes=20_000)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(names) > 3
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


def test_shards_stay_below_their_size_unless_a_member_is_larger(tmp_path):
    found = write(tmp_path, [("a", b"x" * 50_000), ("b", b"x" * 5000), ("c", b"x" * 5000)], shard_bytes=20_000)
    assert [member.shard for member in found.values()] == ["shard-00000.tar", "shard-00001.tar", "shard-00001.tar"]


def test_members_ascend_by_key(tmp_path):
    write(tmp_path, [("a.x", b""), ("a.y", b""), ("a-b.x", b""), ("a_b.x", b"")])  # "." sorts after "-" in a name
    writer = ShardWriter(tmp_path / "..")
    writer._last = "b.x"
    for name in ("b.x", "a-c.x"):
        with pytest.raises(ValueError, match="ascending"):
            writer.add(name, b"")


@pytest.mark.parametrize("name", ["../a", "a/b", "ä.png", ".a", "a" * 101, "a b"])
def test_names_that_could_leave_the_folder_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="member's name"):
        ShardWriter(tmp_path).add(name, b"")


@pytest.mark.parametrize(
    "member",
    [
        Member(shard="gone.tar", offset=0, size=1),
        Member(shard="../secret.tar", offset=0, size=1),
        Member(shard="shard-00000.tar", offset=10**6, size=5),
        Member(shard="shard-00000.tar", offset=512, size=10**6),
    ],
)
def test_members_outside_their_shard_are_refused(tmp_path, member):
    write(tmp_path, [("a", b"data")])
    with pytest.raises(ArtifactError):
        read_member(tmp_path, member)


def test_lines_are_read_back_and_a_broken_one_is_numbered(tmp_path):
    rows = [Row(name="ä", number=1), Row(name="b")]
    write_jsonl(tmp_path / "x.jsonl", rows)
    assert list(read_jsonl(tmp_path / "x.jsonl", Row)) == rows
    with (tmp_path / "x.jsonl").open("a") as stream:
        stream.write('{"name": 3}\n')
    with pytest.raises(ArtifactError, match=r"x\.jsonl:3"):
        list(read_jsonl(tmp_path / "x.jsonl", Row))
    with pytest.raises(ArtifactError, match="no such file"):
        list(read_jsonl(tmp_path / "y.jsonl", Row))
