"""Tell the failures of S3 requests apart, and turn the client's errors into ones that name the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shared.store.environment import endpoint, presentable
from shared.system.errors import UserError

DENIED_CODES = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"}
"""S3 error codes of a user who may not do this."""
NOT_FOUND_CODES = {"NoSuchKey", "NoSuchBucket", "ResourceNotFound"}
"""S3 error codes of an object or bucket that does not exist."""
BUSY_CODES = {
    *("SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "ServerBusy", "TooManyRequests"),
    *("RequestLimitExceeded", "Throttling", "ThrottlingException"),
}
"""S3 error codes of a server that asks for fewer requests."""
BUSY_STATUSES = (429, 503)
"""HTTP statuses of such a server."""
TRANSIENT_CODES = {*BUSY_CODES, "InternalError", "RequestTimeout", "OperationAborted"}
"""S3 error codes after which the same request may succeed."""
TRANSIENT_STATUSES = (*BUSY_STATUSES, 500, 502, 504)
"""HTTP statuses after which the same request may succeed."""


class StalledError(TimeoutError):
    """A connection that makes too little progress, see `shared.store.http.limits`."""


@contextmanager
def translated_errors(uri: str) -> Iterator[None]:
    """Raise the client's errors as UserError with the uri, the problem and the remedy."""
    from xml.etree.ElementTree import ParseError

    import urllib3
    from minio.error import InvalidResponseError, MinioException, S3Error

    try:
        yield
    except S3Error as error:
        raise UserError(_describe(uri, error.code or "", error.message or "")) from error
    except (InvalidResponseError, ParseError, UnicodeDecodeError) as error:
        raise foreign_answer("something else") from error
    except (urllib3.exceptions.HTTPError, MinioException) as error:
        raise UserError(f"{uri}: {_describe_connection(error)}") from error
    except ValueError as error:
        raise UserError(f"{uri}: {presentable(str(error))}") from error


def foreign_answer(what: str) -> UserError:
    """Return the error for a server that is none of S3. what: what it answers with."""
    return UserError(
        f"AWS_ENDPOINT_URL: {endpoint()[0]} answers with {what} in place of S3's XML, as a console or a proxy's login "
        "page does; set it to the address of the S3 server itself, which is often another port"
    )


def is_web_page(text: bytes) -> bool:
    """Say whether it begins like HTML."""
    return text[:200].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _describe(uri: str, code: str, message: str) -> str:
    host = endpoint()[0]
    if code in DENIED_CODES:
        return f"{uri}: {host} refused the keys ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code == "NoSuchBucket":
        return f"{uri}: no such bucket at {host}; create it, or check the name"
    if code in NOT_FOUND_CODES:
        return f"{uri}: no such object at {host}; check the name"
    return f"{uri}: {host} answered {presentable(code)}: {presentable(message)}"


def _describe_connection(error: BaseException) -> str:
    host = endpoint()[0]
    if is_stalled(error):
        return (
            f"the connection to {host} stalled in every attempt; check the network and the server, then run the same "
            "command again"
        )
    if status := _status(error):
        return f"{host} is out of order (status {status}); try again later"
    return f"no usable answer from {host} ({reason(error)}); {_remedy(error)}"


def _remedy(error: BaseException) -> str:
    if "WRONG_VERSION_NUMBER" in str(error):
        return "the server does not use TLS: AWS_ENDPOINT_URL should begin with http://"
    return "check AWS_CA_BUNDLE" if is_certificate_error(error) else "check AWS_ENDPOINT_URL"


def reason(error: BaseException) -> str:
    """Return S3's code, the HTTP status, or the kind of a failure."""
    if is_stalled(error):
        return "stalled"
    if code := getattr(error, "code", None):
        return presentable(code)
    if status := _status(error):
        return f"status {status}"
    return type(getattr(error, "reason", None) or error).__name__


def is_busy(error: BaseException) -> bool:
    """Say whether the server answered that it has too much to do."""
    return getattr(error, "code", "") in BUSY_CODES or _status(error) in BUSY_STATUSES


def is_transient(error: BaseException) -> bool:
    """Say whether the same request may succeed later, by what the server answered."""
    return getattr(error, "code", "") in TRANSIENT_CODES or _status(error) in TRANSIENT_STATUSES


def _status(error: BaseException) -> int:
    """Return the HTTP status that minio keeps in its errors, 0 where there is none."""
    return getattr(error, "status_code", 0) or getattr(getattr(error, "response", None), "status", 0)


def is_stalled(error: BaseException) -> bool:
    """Say whether a connection was closed because it made too little progress."""
    return any(isinstance(cause, StalledError) for cause in _causes(error))


def is_certificate_error(error: BaseException) -> bool:
    """Say whether TLS is at fault, so that a retry is useless; a connection that was cut off is not such a fault."""
    import ssl

    import urllib3

    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLEOFError) for cause in causes):
        return False
    return any(isinstance(cause, ssl.SSLError | urllib3.exceptions.SSLError) for cause in causes)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, its cause, the cause of that, and so on; each library has its own way to keep it."""
    cause: Any = error
    while isinstance(cause, BaseException):
        yield cause
        below = (getattr(cause, "reason", None), cause.__cause__, *cause.args)
        cause = next((item for item in below if isinstance(item, BaseException)), None)
