"""S3, and what speaks its protocol: a client, and what it can answer, in words.

Endpoint: `PIVOTAL_S3_ENDPOINT_URL`. Credentials and region: where AWS's own tools look for them (environment, profile,
role of the machine).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from errors import IntegrationError
from integrations.calls import silence
from settings import get_settings

_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
_ENDPOINT = "check PIVOTAL_S3_ENDPOINT_URL and AWS_REGION, and that the network lets this machine reach it"
_REGION = "set AWS_REGION to the region of the bucket"
_HINTS = {
    "403": "the credentials lack a permission there (s3:GetObject, s3:ListBucket, s3:PutObject)",
    "404": "check bucket and key; capital letters count",
    "AccessDenied": "the credentials lack a permission there (s3:GetObject, s3:ListBucket, s3:PutObject)",
    "AuthorizationHeaderMalformed": _REGION,
    "ExpiredToken": "the credentials have expired: get new ones",
    "IllegalLocationConstraintException": _REGION,
    "InvalidAccessKeyId": _CREDENTIALS,
    "InvalidToken": _CREDENTIALS,
    "NoSuchBucket": "check the bucket's name, and PIVOTAL_S3_ENDPOINT_URL",
    "NoSuchKey": "check the key; capital letters count",
    "PermanentRedirect": _REGION,
    "PreconditionFailed": "the object has changed meanwhile; run again",
    "RequestTimeTooSkewed": "set this machine's clock",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is not the one of AWS_ACCESS_KEY_ID",
}

for _library in ("boto3", "botocore", "urllib3"):  # they log headers with session tokens
    silence(_library)


def open_client() -> Any:  # noqa: ANN401  (boto3 makes its classes at run time)
    """A boto3 client. Its retries (botocore's standard mode) are the only ones; threads may share it.

    Raises:
        IntegrationError: The settings or AWS's configuration files do not make a client.
    """
    from boto3.session import Session
    from botocore.config import Config
    from botocore.session import get_session

    config = Config(
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 5},
        tcp_keepalive=True,
    )
    with s3_errors("open", "s3://"):
        session = get_session()
        session.register_component("data_loader", _api_descriptions())
        return Session(botocore_session=session).client(
            "s3", endpoint_url=get_settings().s3_endpoint_url, config=config
        )


@cache
def _api_descriptions() -> Any:  # noqa: ANN401  (botocore has no types)
    """What botocore reads from its JSON files: most of the time that a client takes, and the same for all."""
    from botocore.loaders import create_loader

    return create_loader()


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`; a key is taken as it is written.

    Raises:
        ValueError: It is no such URL.
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise ValueError(f"{url}: not an S3 address; write s3://bucket/key")
    return bucket, key


@contextmanager
def s3_errors(operation: str, url: str) -> Iterator[None]:
    """Turns what boto3 raises inside into an `IntegrationError`.

    Args:
        operation: What is done: `get`, `list`, `put`.
        url: What to: `s3://bucket/key`.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _answered(error, operation, url) from None
    except BotoCoreError as error:
        raise _not_answered(error, operation, url) from None


class ObjectReader(io.RawIOBase):
    """One version of an object, as a binary file. Each read asks for its range; wrap it in a buffer for small ones.

    Args:
        client: From `open_client`.
        url: `s3://bucket/key`.
        size: Its bytes.
        etag: The version: reading fails with `PreconditionFailed` (and says so) once the object has another one.
    """

    def __init__(self, client: Any, url: str, size: int, etag: str) -> None:  # noqa: ANN401  (see `open_client`)
        super().__init__()
        self._get = client.get_object
        self._url, self._size, self._etag = url, size, etag
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read starts."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to another place; asks nobody."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """The next bytes.

        Raises:
            IntegrationError: They did not come.
        """
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        chunk = self._range(wanted)
        buffer[: len(chunk)] = chunk
        self._position += len(chunk)
        return len(chunk)

    def _range(self, wanted: int) -> bytes:
        """The next bytes. botocore retries until an answer begins; one that breaks off is asked for once more."""
        try:
            return self._body(wanted)
        except IntegrationError as error:
            if error.code not in {"ResponseStreamingError", "IncompleteReadError", "ReadTimeoutError"}:
                raise
        return self._body(wanted)

    def _body(self, wanted: int) -> bytes:
        bucket, key = split_url(self._url)
        span = f"bytes={self._position}-{self._position + wanted - 1}"
        with s3_errors("get", self._url):
            answer = self._get(Bucket=bucket, Key=key, Range=span, IfMatch=self._etag)
            content: bytes = answer["Body"].read()
        return content


def _answered(error: Any, operation: str, url: str) -> IntegrationError:  # noqa: ANN401  (a ClientError, imported late)
    answer: dict[str, Any] = error.response["ResponseMetadata"]
    code, message = (str(error.response["Error"].get(part, "")) for part in ("Code", "Message"))
    status = int(answer.get("HTTPStatusCode", 0))
    trouble = status >= 500 or code in {"SlowDown", "RequestTimeout", "Throttling"}
    tried = f", after {answer['RetryAttempts'] + 1} attempts" if answer.get("RetryAttempts") else ""
    return IntegrationError(
        f"{url}: {message.rstrip('.') or 'refused'} ({' '.join(dict.fromkeys((str(status), code)))}{tried})",
        service="s3",
        operation=operation,
        status=status,
        code=code,
        request_id=answer.get("RequestId") or None,
        hint="the store is in trouble: run again later, and check PIVOTAL_S3_ENDPOINT_URL"
        if trouble
        else _HINTS.get(code),
        retryable=trouble or code == "PreconditionFailed",
    )


def _not_answered(error: Exception, operation: str, url: str) -> IntegrationError:
    from botocore import exceptions as known

    hint, retryable = None, False
    if isinstance(error, known.NoCredentialsError | known.PartialCredentialsError | known.CredentialRetrievalError):
        hint = _CREDENTIALS
    elif isinstance(error, known.HTTPClientError | known.ConnectionError | known.IncompleteReadError):
        hint, retryable = _ENDPOINT, True
    elif isinstance(error, known.EndpointProviderError | known.NoRegionError):
        hint = _ENDPOINT
    message = " ".join(str(error).removeprefix("Parameter validation failed:").split()).split(" or be an ARN")[0]
    return IntegrationError(
        f"{url}: {message}",
        service="s3",
        operation=operation,
        code=type(error).__name__,
        hint=hint,
        retryable=retryable,
    )
