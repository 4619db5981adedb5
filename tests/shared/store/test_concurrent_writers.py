"""Two writers of one artifact, and an artifact that replaces another."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from minio import Minio
from store_for_tests import artifact, counted

from shared import store
from shared.artifacts.kinds import Files
from shared.artifacts.manifest import read_manifest, seal, verify
from shared.store import upload
from shared.system.errors import UserError


@pytest.mark.usefixtures("small_parts")
def test_two_writers_of_one_artifact_leave_one_of_the_two(s3: str, tmp_path: Path, monkeypatch) -> None:
    """The overtaken one raises an error; the artifact that stays is whole."""
    mine, theirs = artifact(tmp_path / "mine"), artifact(tmp_path / "theirs", size=5000)

    def overtake(count: int) -> None:
        if count == 3 and not overtaken:
            overtaken.append(True)
            store.send(theirs, f"{s3}/contested")

    overtaken: list[bool] = []
    with monkeypatch.context() as patch:
        counted(patch, upload, "_is_there", overtake)
        with pytest.raises(UserError, match="another process is writing there"):
            store.send(mine, f"{s3}/contested")
    assert overtaken
    store.fetch(f"{s3}/contested", tmp_path / "fetched")
    assert verify(tmp_path / "fetched") == read_manifest(theirs)


def test_wherever_two_writers_meet_no_broken_artifact_stays(s3: str, s3_server, tmp_path: Path, monkeypatch) -> None:
    """The second begins before any request of the first, and is held up at several of its own until that one is done.

    In the end every reader finds a whole artifact, or there is none and at least one writer raised an error.
    """
    monkeypatch.setattr(upload, "run_parallel", lambda call, items: [call(item) for item in items])
    folders = small_artifact(tmp_path / "mine", {"0": "a", "1": "b"}), small_artifact(tmp_path / "theirs", {"0": "c"})
    whole = {read_manifest(folder).digest for folder in folders}
    meeting = Meeting(monkeypatch)
    requests = meeting.count(lambda: store.send(folders[0], f"{s3}/alone"))
    assert requests > 10
    outcomes = set()
    for begin in range(requests):
        for hold in (*range(0, requests, 3), requests + 99):
            uri = f"{s3}/meet/{begin}-{hold}"
            troubles = meeting.hold([partial(store.send, folder, uri) for folder in folders], begin, hold)
            assert all(isinstance(trouble, UserError) for trouble in troubles)
            assert all("another process is writing there" in str(trouble) for trouble in troubles)
            if store.exists(f"{uri}/artifact.json"):
                assert read_as_it_is(s3_server, uri, tmp_path / "got" / f"{begin}-{hold}").digest in whole
            else:
                assert troubles, "no writer raised an error"
            outcomes.add((len(troubles), store.exists(f"{uri}/artifact.json")))
    assert {(0, True), (1, True), (1, False)} <= outcomes, "every outcome occurred"


class Meeting:
    """Let two threads take turns, by counting the requests of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.before: dict[int, Callable[[], None]] = {}
        """Thread -> what it calls before each request."""
        real = Minio._execute

        def execute(client, *args, **options):
            self.before.get(threading.get_ident(), lambda: None)()
            return real(client, *args, **options)

        monkeypatch.setattr(Minio, "_execute", execute)

    def count(self, call: Callable[[], None]) -> int:
        """Requests of a call."""
        seen: list[None] = []
        self.before = {threading.get_ident(): lambda: seen.append(None)}
        call()
        return len(seen)

    def hold(self, calls: list[Callable[[], None]], begin: int, hold: int) -> list[Exception]:
        """Run the first; before its request `begin` start the second, which waits before its request `hold`."""
        held, ended, troubles = threading.Event(), threading.Event(), []

        def guarded(call: Callable[[], None]) -> None:
            try:
                call()
            except Exception as trouble:
                troubles.append(trouble)

        def second() -> None:
            self.before[threading.get_ident()] = step(hold, lambda: (held.set(), ended.wait(60)))
            guarded(calls[1])
            held.set()

        thread = threading.Thread(target=second)
        self.before = {threading.get_ident(): step(begin, lambda: (thread.start(), held.wait(60)))}
        guarded(calls[0])
        ended.set()
        thread.join(60)
        return troubles


def step(number: int, then: Callable[[], object]) -> Callable[[], None]:
    """Return a function that calls `then` once, after `number` calls."""
    seen: list[None] = []

    def call() -> None:
        seen.append(None)
        if len(seen) == number + 1:
            then()

    return call


def small_artifact(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    seal(folder, Files)
    return folder


def read_as_it_is(s3_server, uri: str, folder: Path):
    """Copy a prefix with MinIO's own client, as a launcher does, and verify it; returns the manifest."""
    prefix = uri.split("/", 3)[3] + "/"
    for item in s3_server.client().list_objects(s3_server.bucket, prefix, recursive=True):
        target = str(folder / item.object_name.removeprefix(prefix))
        s3_server.client().fget_object(s3_server.bucket, item.object_name, target)
    return verify(folder)


def test_nothing_is_left_of_an_artifact_that_was_replaced(s3: str, s3_server, tmp_path: Path) -> None:
    """Nor of an interrupted upload."""
    old = small_artifact(tmp_path / "old", {"0.tar": "x", "1.tar": "y", "2.tar": "z"})
    new = small_artifact(tmp_path / "new", {"0.tar": "n"})
    store.send(old, f"{s3}/replaced")
    store.send(new, f"{s3}/replaced")
    assert read_as_it_is(s3_server, f"{s3}/replaced", tmp_path / "got") == read_manifest(new)
    for path in old.iterdir():  # as a launcher writes it, without headers
        s3_server.client().fput_object(s3_server.bucket, f"launched/{path.name}", str(path))
    store.send(new, f"{s3}/launched")
    assert read_as_it_is(s3_server, f"{s3}/launched", tmp_path / "got2") == read_manifest(new)
    store.send(old, f"{s3}/broken-off")
    store.remove(f"{s3}/broken-off/artifact.json")  # as after an interrupted upload
    store.send(new, f"{s3}/broken-off")
    assert read_as_it_is(s3_server, f"{s3}/broken-off", tmp_path / "got3") == read_manifest(new)


def test_what_is_not_of_the_artifact_is_left_alone(s3: str, tmp_path: Path, caplog) -> None:
    inner, outer = (
        small_artifact(tmp_path / "inner", {"0.tar": "i"}),
        small_artifact(tmp_path / "outer", {"1.tar": "o"}),
    )
    store.send(inner, f"{s3}/outer/inner")
    store.put(f"{s3}/outer/notes.txt", b"mine")
    store.send(outer, f"{s3}/outer")
    store.fetch(f"{s3}/outer/inner", tmp_path / "fetched")
    assert store.get(f"{s3}/outer/notes.txt") == b"mine"
    assert "notes.txt is no part of the artifact" in caplog.text
