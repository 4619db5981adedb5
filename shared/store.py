"""Objects in S3: bring an artifact here, send one there, checked by content. The one importer of minio.

Where the server is and the keys come from the environment: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, AWS_CA_BUNDLE). None of them is ever an argument or in a message, but for
the endpoint's host. `CYTOLOOM_CACHE`, a folder, keeps fetched artifacts.
"""

import hashlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from shared.artifacts import MANIFEST, read_manifest, verify
from shared.errors import ArtifactError, UserError
from shared.log import log

T = TypeVar("T")

PART = 32 * 2**20
"""Bytes of a part, both ways: a large file travels in parts, side by side."""
PARALLEL = 8
"""Transfers at a time."""
ATTEMPTS = 4
"""Tries of a transfer before it fails, beside those of each single request."""
REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"}
GONE = {"NoSuchKey", "NoSuchBucket", "ResourceNotFound"}


# --- single objects -----------------------------------------------------------------------------------------------


def exists(uri: str) -> bool:
    """Whether there is an object of exactly this name."""
    bucket, key = split(uri)
    with _explained(uri):
        try:
            _retried(lambda: _client().stat_object(bucket, key))
            return True
        except Exception as error:
            if getattr(error, "code", "") in GONE and _has_bucket(bucket):
                return False
            raise


def put(uri: str, data: bytes) -> None:
    """Write one small object as a whole."""
    bucket, key = split(uri)
    with _explained(uri):
        _retried(lambda: _client().put_object(bucket, key, io.BytesIO(data), len(data)))


def get(uri: str) -> bytes:
    """Read one small object as a whole."""
    bucket, key = split(uri)
    with _explained(uri):
        return _retried(lambda: _read(bucket, key, 0, 0))


def remove(uri: str) -> None:
    """Remove one object; that there is none is fine."""
    bucket, key = split(uri)
    with _explained(uri):
        _retried(lambda: _client().remove_object(bucket, key))


def listing(uri: str) -> list[tuple[str, int, str]]:
    """(name relative to `uri`, bytes, etag) of every object below it, sorted; of an object itself, that one.

    Equal listings mean equal contents as far as the server tells: what a fingerprint of a source is made from.
    """
    bucket, key = split(uri)
    prefix = key.rstrip("/")
    below = prefix + "/" if prefix else ""
    with _explained(uri):
        items = _retried(lambda: list(_client().list_objects(bucket, prefix=prefix, recursive=True)))
    found = []
    for item in items:
        if item.object_name == prefix:
            found.append((PurePosixPath(prefix).name, item.size, item.etag.strip('"')))
        elif item.object_name.startswith(below) and not item.object_name.endswith("/"):
            found.append((item.object_name.removeprefix(below), item.size, item.etag.strip('"')))
    return sorted(found)


# --- folders ------------------------------------------------------------------------------------------------------


def send(folder: Path, uri: str) -> None:
    """Upload an artifact, its `artifact.json` last: until then there is no artifact at `uri`."""
    bucket, key = split(uri)
    prefix = key.rstrip("/")
    if not prefix:
        raise UserError(f"{uri}: an artifact needs a name of its own in the bucket: {uri.rstrip('/')}/NAME")
    names = sorted(read_manifest(folder).files)

    def upload(name: str) -> None:
        path = str(folder / name)
        _retried(lambda: _client().fput_object(bucket, f"{prefix}/{name}", path, part_size=PART))

    with _explained(uri):
        _retried(lambda: _client().remove_object(bucket, f"{prefix}/{MANIFEST}"))
        _side_by_side(upload, names)
        upload(MANIFEST)


def fetch(uri: str, folder: Path) -> None:
    """Download an artifact and check it; `folder` appears only once every byte agrees with `artifact.json`."""
    uri = uri.rstrip("/")
    if not exists(f"{uri}/{MANIFEST}"):
        raise ArtifactError(f"{uri}: no {MANIFEST} there, so it is no finished artifact; run the stage that makes it")
    manifest = get(f"{uri}/{MANIFEST}")
    kept = _kept(manifest)
    if kept and kept.is_dir():
        try:
            verify(kept)
        except ArtifactError as error:
            log.info("the cached copy of %s is damaged and fetched again (%s)", uri, error)
            shutil.rmtree(kept)
    with _beside(folder) as partial:
        if kept and kept.is_dir():
            log.info("%s: from the cache", uri)
            shutil.copytree(kept, partial, copy_function=_link, dirs_exist_ok=True)
        else:
            (partial / MANIFEST).write_bytes(manifest)
            names = {name: file.size for name, file in read_manifest(partial).files.items()}
            _download(uri, names, partial)
            try:
                verify(partial)
            except ArtifactError as error:
                raise ArtifactError(str(error).replace(str(partial), uri)) from error
            _keep(partial, kept)


def fetch_prefix(uri: str, folder: Path) -> None:
    """Download every object below `uri`, or the one object `uri`, as plain files into `folder`."""
    found = listing(uri)
    if not found:
        raise UserError(f"{uri}: no object there; check the name, or upload the images first")
    if len(found) == 1 and exists(uri):
        uri = uri.rpartition("/")[0]
    with _beside(folder) as partial:
        _download(uri.rstrip("/"), {name: size for name, size, _ in found}, partial)


def _download(uri: str, sizes: dict[str, int], folder: Path) -> None:
    """Fetch `uri/NAME` for every name, large ones in parts, all side by side."""
    bucket, key = split(uri)
    for name, size in sizes.items():
        path = inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            stream.truncate(size)

    def part(job: tuple[str, int, int]) -> None:
        name, offset, length = job
        data = _retried(lambda: _read(bucket, f"{key}/{name}" if key else name, offset, length))
        with (folder / name).open("r+b") as stream:
            stream.seek(offset)
            stream.write(data)

    with _explained(uri):
        _side_by_side(part, _parts(sizes))


def _parts(sizes: dict[str, int]) -> Iterator[tuple[str, int, int]]:
    """(name, offset, length) that together cover every file."""
    for name, size in sizes.items():
        for offset in range(0, size, PART):
            yield name, offset, min(PART, size - offset)


def inside(folder: Path, name: str) -> Path:
    """`folder/name`, where that is really inside `folder`; object names may be anything."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise UserError(f"{name!r}: an object's name that leads out of its folder; rename it in the bucket")
    return folder / name


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` if all goes well, and vanishes if not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        yield partial
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _kept(manifest: bytes) -> Path | None:
    """Where `CYTOLOOM_CACHE` has, or will have, the artifact with this manifest."""
    root = os.environ.get("CYTOLOOM_CACHE")
    return Path(root) / "artifacts" / hashlib.sha256(manifest).hexdigest() if root else None


def _keep(folder: Path, kept: Path | None) -> None:
    """Put a copy into the cache. A full cache is no reason to fail."""
    if kept is None:
        return
    try:
        with _beside(kept) as partial:
            shutil.copytree(folder, partial, copy_function=_link, dirs_exist_ok=True)
    except OSError as error:
        log.info("not cached: %s", error)


def _link(source: str, target: str) -> None:
    """A hard link where the file system allows: fetched artifacts are never written to."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


# --- the server ---------------------------------------------------------------------------------------------------


def split(uri: str) -> tuple[str, str]:
    """`s3://bucket/a/key` -> (bucket, "a/key"). Raises UserError for anything else."""
    scheme, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not separator or not bucket:
        raise UserError(f"{uri}: not of the form s3://bucket/name")
    return bucket, key


def _endpoint() -> tuple[str, bool]:
    """(host:port, whether TLS) of the server; Amazon's own where AWS_ENDPOINT_URL is not set."""
    url = urlsplit(os.environ.get("AWS_ENDPOINT_URL") or f"https://s3.{_region()}.amazonaws.com")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UserError("AWS_ENDPOINT_URL: not of the form http://host:port or https://host")
    return f"{url.hostname}:{url.port}" if url.port else url.hostname, url.scheme == "https"


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _client() -> Any:
    """The client for the present environment."""
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    if not key or not secret:
        raise UserError("no S3 keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")
    return _connect(*_endpoint(), key, secret, os.environ.get("AWS_SESSION_TOKEN"), _region())


@cache
def _connect(host: str, tls: bool, key: str, secret: str, token: str | None, region: str) -> Any:
    import certifi
    import urllib3
    from minio import Minio

    authorities = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or certifi.where()
    http = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=10, read=120),
        maxsize=2 * PARALLEL,
        ca_certs=authorities,
        retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
    )
    return Minio(host, key, secret, token, secure=tls, region=region, http_client=http)


def _has_bucket(bucket: str) -> bool:
    """Raises NoSuchBucket where there is none; keys that may not ask count as yes."""
    from minio.error import S3Error

    try:
        if _client().bucket_exists(bucket):
            return True
    except S3Error as error:
        return error.code in REFUSED
    raise UserError(f"s3://{bucket}: no such bucket at {_endpoint()[0]}; make it first, or check the name")


def _read(bucket: str, key: str, offset: int, length: int) -> bytes:
    """Bytes of one object from `offset`; length 0: all of them. A short answer is an error, to be tried again."""
    response = _client().get_object(bucket, key, offset=offset, length=length)
    try:
        data = response.read()
    finally:
        response.close()
        response.release_conn()
    if length and len(data) != length:
        raise UserError(f"s3://{bucket}/{key}: {len(data)} bytes from {offset} where {length} are expected; it changed")
    return data


def _retried(call: Callable[[], T]) -> T:
    """`call()`, again with growing pauses where the server or the network was at fault."""
    import urllib3
    from minio.error import S3Error, ServerError

    for attempt in range(ATTEMPTS):
        try:
            return call()
        except urllib3.exceptions.MaxRetryError:
            raise  # each request was tried several times already
        except (urllib3.exceptions.HTTPError, ServerError, S3Error) as error:
            passing = not isinstance(error, S3Error) or error.code in ("SlowDown", "InternalError", "RequestTimeout")
            if attempt == ATTEMPTS - 1 or not passing:
                raise
            time.sleep(0.25 * 2**attempt)
    raise AssertionError("unreachable")


def _side_by_side(call: Callable[[Any], None], items: Iterable[Any]) -> None:
    """`call(item)` for all, some at a time; the first error ends it, and what has not begun is not begun."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        futures = [pool.submit(call, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn the client's errors into ones that say what to do."""
    import urllib3
    from minio.error import MinioException, S3Error

    try:
        yield
    except S3Error as error:
        raise UserError(_reason(uri, error.code or "", error.message or "")) from error
    except (urllib3.exceptions.HTTPError, MinioException) as error:
        host = _endpoint()[0]
        kind = type(getattr(error, "reason", None) or error).__name__
        raise UserError(f"{uri}: no usable answer from {host} ({kind}); check AWS_ENDPOINT_URL") from error
    except ValueError as error:
        raise UserError(f"{uri}: {error}") from error


def _reason(uri: str, code: str, message: str) -> str:
    host = _endpoint()[0]
    if code in REFUSED:
        return f"{uri}: {host} refused the keys ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code == "NoSuchBucket":
        return f"{uri}: no such bucket at {host}; make it first, or check the name"
    if code in GONE:
        return f"{uri}: no such object at {host}"
    return f"{uri}: {host} answered {code}: {message}"
