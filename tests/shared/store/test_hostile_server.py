"""Servers that are not what they should be: they redirect, ask to wait, answer with pages, or send without end."""

import gzip
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from http_server import Request, ScriptedServer, serve
from store_for_tests import SECRETS, SimpleS3, artifact, asked_range, error_xml, scripted

from shared import store
from shared.store import retries, transfer
from shared.store.environment import presentable
from shared.store.http import limits
from shared.system.errors import UserError

pytestmark = pytest.mark.timeout(100)  # a wait as long as the server asks fails

S3 = "s3://bucket"
XML = "application/xml"


def operations(folder: Path) -> dict[str, Callable[[], object]]:
    """All that is done with a store; each needs a server."""
    sent = artifact(folder / "sent")
    return {
        "exists": lambda: store.exists(f"{S3}/a"),
        "get": lambda: store.get(f"{S3}/a"),
        "find": lambda: store.find(f"{S3}/a"),
        "put": lambda: store.put(f"{S3}/a", b"data"),
        "remove": lambda: store.remove(f"{S3}/a"),
        "listing": lambda: store.listing(f"{S3}/a"),
        "claim": lambda: store.claim(f"{S3}/a", overwrite=False),
        "send": lambda: store.send(sent, f"{S3}/a"),
        "fetch": lambda: store.fetch(f"{S3}/a", folder / "fetched"),
        "fetch_prefix": lambda: store.fetch_prefix(f"{S3}/a", folder / "fetched"),
    }


def refused(call: Callable[[], object], match: str, caplog: pytest.LogCaptureFixture) -> None:
    """Check that a call raises UserError with these words, and that neither it nor the log holds a key."""
    with pytest.raises(UserError, match=match) as caught:
        call()
    for secret in SECRETS.values():
        assert secret not in str(caught.value) + caplog.text


# --- redirects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, status: int) -> None:
    """Whoever is redirected to would get the session's token."""
    other = ScriptedServer(lambda request: request.reply(200, b"stolen", ETag='"1"'))

    def redirect(request: Request) -> None:
        request.reply(status, Location=f"http://me:hostile-test-token@{other.host}{request.path}")

    with serve(other), scripted(monkeypatch, redirect) as server:
        for name, call in operations(tmp_path).items():
            refused(call, rf"AWS_ENDPOINT_URL: {server.host} redirects to http://{other.host}, and no redirect", caplog)
            assert server.requests and not other.requests, name
            server.requests.clear()


def test_a_redirect_to_another_path_is_none_of_s3_either(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    for location, words in (("/login?next=/", "another path of its own"), ("http://[", "an address that cannot be")):
        answer = lambda request, location=location: request.reply(302, Location=location)  # noqa: E731
        with scripted(monkeypatch, answer):
            refused(lambda: store.exists(f"{S3}/a"), f"redirects to {words}", caplog)


def test_a_bucket_in_another_region_is_named(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    answer = lambda request: request.reply(301, x_amz_bucket_region="eu-west-1")  # noqa: E731
    with scripted(monkeypatch, answer) as server:
        words = f"AWS_REGION: {server.host} says that the bucket is in eu-west-1, not in us-east-1; set AWS_REGION"
        refused(lambda: store.listing(f"{S3}/a"), words, caplog)
        refused(lambda: store.exists(f"{S3}/a"), words, caplog)


# --- waits --------------------------------------------------------------------------------------------------------


def failing(count: int, status: int, body: bytes = b"", **headers: str) -> Callable[[Request], None]:
    """Answer the first `count` requests with this, the others as a server with one object."""
    answers, well = iter(range(count)), SimpleS3({"a/image.tif": b"image"})

    def answer(request: Request) -> None:
        if next(answers, None) is None:
            well(request)
        else:
            request.reply(status, body, **headers)

    return answer


IN_NINE_DAYS = format_datetime(datetime.now(UTC) + timedelta(days=9), usegmt=True)


@pytest.mark.parametrize("asked", ["86400", IN_NINE_DAYS], ids=["seconds", "date"])
def test_a_server_may_ask_to_wait_up_to_a_limit(monkeypatch: pytest.MonkeyPatch, caplog, asked: str) -> None:
    monkeypatch.setattr(limits, "MAX_RETRY_AFTER_S", 0.05)
    with scripted(monkeypatch, failing(1, 503, error_xml("SlowDown"), Content_Type=XML, Retry_After=asked)) as server:
        assert [name for name, _, _ in store.listing(f"{S3}/a")] == ["image.tif"]
    assert f"{server.host} is busy (status 503) and asks to wait: 0.05 s" in caplog.text


@pytest.mark.parametrize("asked", ["soon", "9" * 5000])
def test_a_wait_that_cannot_be_read_is_ignored(monkeypatch: pytest.MonkeyPatch, caplog, asked: str) -> None:
    with scripted(monkeypatch, failing(1, 503, error_xml("SlowDown"), Content_Type=XML, Retry_After=asked)):
        assert len(store.listing(f"{S3}/a")) == 1
    assert "asks to wait" not in caplog.text


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, error_xml("SlowDown", "Please reduce your request rate."), XML),
        (503, error_xml("XMinioServerNotInitialized"), XML),
        (429, error_xml("TooManyRequests"), XML),
        (503, b"<html>no server is available</html>", "text/html"),
        (503, b"no healthy upstream", "text/plain"),
    ],
)
def test_a_busy_server_is_waited_for(monkeypatch: pytest.MonkeyPatch, caplog, status, body, kind) -> None:
    """While listing, too; longer than the retries of the connection last, and whatever the number of attempts."""
    monkeypatch.setattr(retries, "MAX_ATTEMPTS", 1)
    with scripted(monkeypatch, failing(6, status, body, Content_Type=kind)) as server:
        assert [name for name, _, _ in store.listing(f"{S3}/a")] == ["image.tif"]
    assert len(server.requests) == 7
    assert "; trying again" in caplog.text


def test_a_server_that_stays_busy_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(retries, "MAX_OUTAGE_S", 0.1)
    busy = failing(10**6, 503, error_xml("SlowDown", "Reduce your rate."), Content_Type=XML)
    with scripted(monkeypatch, busy) as server:
        refused(lambda: store.listing(f"{S3}/a"), f"{S3}/a: {server.host} answered SlowDown: Reduce your rate", caplog)
    with scripted(monkeypatch, failing(10**6, 502, b"<html>bad gateway</html>", Content_Type="text/html")) as server:
        refused(lambda: store.get(f"{S3}/a"), f"{S3}/a: {server.host} is out of order \\(status 502\\); try", caplog)


# --- bodies -------------------------------------------------------------------------------------------------------

MUCH = 2**28
"""Bytes that stand for no end."""


def pour(request: Request, status: int, **headers: str) -> None:
    """Answer with a body of unknown length, and note what the client took of it."""
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Connection", "close")
    request.end_headers()
    request.server.taken = 0
    while request.server.taken < MUCH:
        request.wfile.write(bytes(2**16))
        request.server.taken += 2**16


def sizes_below(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]


class Pourer(SimpleS3):
    """Sends objects without end."""

    def reply_object(self, request: Request, data: bytes) -> None:
        if request.command == "HEAD":
            super().reply_object(request, data)
        elif asked_range(request):
            pour(request, 206, Content_Range=f"bytes 0-{len(data) - 1}/{len(data)}")
        else:
            pour(request, 200)


def test_no_more_is_written_than_was_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    with scripted(monkeypatch, Pourer({"a/image.tif": bytes(70_000)})) as server:
        call = operations(tmp_path)["fetch_prefix"]
        refused(call, rf"{S3}/a/image\.tif: {server.host} sends other bytes than the 70000 from 0", caplog)
        assert sum(asked_range(request) is not None for request in server.requests) == 1, "it is not asked again"
    assert server.taken < MUCH
    assert max(sizes_below(tmp_path)) <= 70_000


class Announcer(SimpleS3):
    """Answers a range with all bytes, and with the headers that `headers` makes of the first byte asked for."""

    def __init__(self, objects: dict[str, bytes], status: int, headers: Callable[[int], dict[str, str]]) -> None:
        super().__init__(objects)
        self.status, self.headers = status, headers

    def reply_object(self, request: Request, data: bytes) -> None:
        if bounds := asked_range(request):
            request.reply(self.status, data, **self.headers(bounds[0]))
        else:
            super().reply_object(request, data)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (
            206,
            lambda first: {"Content_Range": f"bytes {first}-199/200", "Content_Length": "200"},
        ),  # more than asked for
        (206, lambda first: {"Content_Range": f"bytes {first}-{first + 49}/200", "Content_Length": "50"}),  # less
        (206, lambda first: {"Content_Range": f"bytes {first}-{first + 99}/300", "Content_Length": "100"}),  # has grown
        (206, lambda first: {"Content_Range": "bytes 0-99/200", "Content_Length": "100"}),  # another range
        (206, lambda first: {"Content_Length": "100"}),
        (200, lambda first: {"Content_Length": "100"}),  # it ignores that a range is asked for
        (200, lambda first: {}),
    ],
)
def test_other_bytes_than_were_asked_for(tmp_path, monkeypatch, caplog, status: int, headers) -> None:
    """In parts of 100 bytes, of an object of 200 bytes."""
    monkeypatch.setattr(transfer, "PART_BYTES", 100)
    with scripted(monkeypatch, Announcer({"a/image.tif": bytes(200)}, status, headers)):
        refused(operations(tmp_path)["fetch_prefix"], "sends other bytes than the .* so the object has changed", caplog)
    assert not (tmp_path / "fetched").exists()


def test_what_follows_the_announced_length_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(100))
    headers = {"Content_Length": "100", "Content_Range": "bytes 0-99/100"}

    class Appender(SimpleS3):
        def reply_object(self, request: Request, data: bytes) -> None:
            if asked_range(request):
                request.reply(206, data + b"and more" * 1000, **headers)
            else:
                request.reply(200, data + b"and more" * 1000, Content_Length="100", ETag='"1"')

    with scripted(monkeypatch, Appender({"a/image.tif": data})):
        store.fetch_prefix(f"{S3}/a", tmp_path / "fetched")
        assert store.get(f"{S3}/a/image.tif") == data
    assert (tmp_path / "fetched/image.tif").read_bytes() == data


def test_compressed_objects_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes can unpack to any number."""
    packed = gzip.compress(bytes(10**7))
    headers = {"Content_Range": f"bytes 0-{len(packed) - 1}/{len(packed)}", "Content_Encoding": "gzip"}
    answer = Announcer({"a/image.tif.gz": packed}, 206, lambda first: headers)
    with scripted(monkeypatch, answer):
        store.fetch_prefix(f"{S3}/a", tmp_path / "fetched")
    assert (tmp_path / "fetched/image.tif.gz").read_bytes() == packed


def test_answers_are_read_into_memory_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """Listings, errors and objects of unknown length."""
    monkeypatch.setattr(limits, "MAX_ANSWER_BYTES", 10**6)
    words = "AWS_ENDPOINT_URL: an answer of more than 1000000 bytes"
    for status, words_for_get in ((200, rf"{S3}/a: larger than 1000000 bytes"), (403, words), (503, words)):
        with scripted(monkeypatch, lambda request, status=status: pour(request, status, Content_Type=XML)) as server:
            refused(lambda: store.listing(f"{S3}/a"), words, caplog)
            assert server.taken < MUCH
            refused(lambda: store.get(f"{S3}/a"), words_for_get, caplog)
            assert server.taken < MUCH


def test_a_manifest_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(limits, "MAX_ANSWER_BYTES", 20_000)
    with scripted(monkeypatch, SimpleS3({"a/artifact.json": bytes(20_001), "large": bytes(50_000)})):
        refused(operations(tmp_path)["fetch"], rf"{S3}/a/artifact\.json: larger than 20000 bytes", caplog)
        assert store.get(f"{S3}/large") == bytes(50_000), "checkpoints are larger"


# --- pages in place of answers ------------------------------------------------------------------------------------

PAGE = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>"


@pytest.mark.parametrize("status", [200, 401, 403, 404])
def test_a_console_is_no_s3_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, status: int) -> None:
    answer = lambda request: request.reply(status, PAGE, Content_Type="text/html; charset=utf-8")  # noqa: E731
    with scripted(monkeypatch, answer) as server:
        for call in operations(tmp_path).values():
            words = (
                rf"AWS_ENDPOINT_URL: {server.host} answers with a web page \(HTML, status {status}\) in place of S3's"
            )
            refused(call, words + ".*; set it to the address of the S3 server itself", caplog)


@pytest.mark.parametrize("name", ["fetch", "listing", "fetch_prefix"])
def test_a_page_with_the_headers_of_an_object(tmp_path: Path, monkeypatch, caplog, name: str) -> None:
    """Web servers send an ETag as well."""
    answer = lambda request: request.reply(200, PAGE, Content_Type="text/html", ETag='"1"')  # noqa: E731
    with scripted(monkeypatch, answer):
        refused(operations(tmp_path)[name], "answers with a web page", caplog)


@pytest.mark.parametrize(
    ("body", "kind"), [(b'{"error": "no"}', "application/json"), (b"", "text/plain"), (b"\xff", "")]
)
def test_neither_xml_nor_a_page(monkeypatch: pytest.MonkeyPatch, caplog, body: bytes, kind: str) -> None:
    for status in (200, 403):
        with scripted(monkeypatch, lambda request, status=status: request.reply(status, body, Content_Type=kind)):
            refused(lambda: store.listing(f"{S3}/a"), "answers with something else in place of S3's XML", caplog)


def test_an_object_that_is_a_page(s3: str, s3_server, tmp_path: Path) -> None:
    """Reports are kept in buckets too."""
    (tmp_path / "report.html").write_bytes(PAGE)
    s3_server.client().fput_object(
        s3_server.bucket, "pages/report.html", str(tmp_path / "report.html"), content_type="text/html"
    )
    store.fetch_prefix(f"{s3}/pages", tmp_path / "fetched")
    assert (tmp_path / "fetched/report.html").read_bytes() == PAGE
    assert store.exists(f"{s3}/pages/report.html") and store.get(f"{s3}/pages/report.html") == PAGE


# --- texts of the server in messages ------------------------------------------------------------------------------


def test_a_server_cannot_put_keys_into_messages(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """Nor anything that changes a terminal."""
    text = " ".join(SECRETS.values()) + "\x9b31m" + "x" * 10_000
    answer = lambda request: request.reply(400, error_xml("Odd", text), Content_Type=XML)  # noqa: E731
    with scripted(monkeypatch, answer):
        refused(lambda: store.listing(f"{S3}/a"), r"answered Odd: \*\*\* \*\*\* \*\*\*\\x9b31mx{200,300}$", caplog)
        assert presentable("hostile-test-token\n") == "***\\n"


def test_a_listing_that_begins_anew_for_ever(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def answer(request: Request) -> None:
        body = (
            b"<ListBucketResult><Name>bucket</Name><IsTruncated>true</IsTruncated><NextContinuationToken>1"
            b"</NextContinuationToken><Contents><Key>a/image.tif</Key><Size>5</Size></Contents></ListBucketResult>"
        )
        request.reply(200, body, Content_Type=XML)

    with scripted(monkeypatch, answer) as server:
        refused(lambda: store.listing(f"{S3}/a"), f"{S3}/a: {server.host} lists 'a/image.tif' twice", caplog)


@pytest.mark.parametrize("size", ["", "<Size>-1</Size>"])
def test_a_listing_without_sizes(monkeypatch: pytest.MonkeyPatch, caplog, size: str) -> None:
    body = f"<ListBucketResult><Name>bucket</Name><Contents><Key>a/b</Key>{size}</Contents></ListBucketResult>".encode()
    with scripted(monkeypatch, lambda request: request.reply(200, body, Content_Type=XML)):
        refused(lambda: store.listing(f"{S3}/a"), "lists 'a/b' with (None|-1) bytes", caplog)
