"""Tell the failures of S3 requests apart, and turn the client's errors into ones that name the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shared.store.environment import endpoint
from shared.system.errors import UserError

DENIED_CODES = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"}
"""S3 error codes of a user who may not do this."""
NOT_FOUND_CODES = {"NoSuchKey", "NoSuchBucket", "ResourceNotFound"}
"""S3 error codes of an object or bucket that does not exist."""
TRANSIENT_CODES = {
    "SlowDown",
    "InternalError",
    "RequestTimeout",
    "ServiceUnavailable",
    "ServerBusy",
    "OperationAborted",
}
"""S3 error codes after which the same request may succeed."""


@contextmanager
def translated_errors(uri: str) -> Iterator[None]:
    """Raise the client's errors as UserError with the uri, the problem and the remedy."""
    import urllib3
    from minio.error import MinioException, S3Error

    try:
        yield
    except S3Error as error:
        raise UserError(_describe(uri, error.code or "", error.message or "")) from error
    except (urllib3.exceptions.HTTPError, MinioException) as error:
        kind = type(getattr(error, "reason", None) or error).__name__
        raise UserError(f"{uri}: no usable answer from {endpoint()[0]} ({kind}); {_remedy(error)}") from error
    except ValueError as error:
        raise UserError(f"{uri}: {error}") from error


def _describe(uri: str, code: str, message: str) -> str:
    host = endpoint()[0]
    if code in DENIED_CODES:
        return f"{uri}: {host} refused the keys ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code == "NoSuchBucket":
        return f"{uri}: no such bucket at {host}; create it, or check the name"
    if code in NOT_FOUND_CODES:
        return f"{uri}: no such object at {host}; check the name"
    return f"{uri}: {host} answered {code}: {message}"


def _remedy(error: BaseException) -> str:
    if "WRONG_VERSION_NUMBER" in str(error):
        return "the server does not use TLS: AWS_ENDPOINT_URL should begin with http://"
    return "check AWS_CA_BUNDLE" if is_certificate_error(error) else "check AWS_ENDPOINT_URL"


def is_certificate_error(error: BaseException) -> bool:
    """Say whether TLS is at fault, so that a retry is useless; a connection that was cut off is not such a fault."""
    import ssl

    import urllib3

    cause: Any = error
    found = False
    while isinstance(cause, BaseException):
        if isinstance(cause, ssl.SSLEOFError):
            return False
        found |= isinstance(cause, ssl.SSLError | urllib3.exceptions.SSLError)
        causes = (getattr(cause, "reason", None), cause.__cause__, *cause.args)  # each library has its own way
        cause = next((item for item in causes if isinstance(item, BaseException)), None)
    return found
