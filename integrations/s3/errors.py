"""S3's failures, and those of the way to it, as errors that say what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from errors import IntegrationError
from integrations.calls import NO_ANSWER, NOT_SENT, UNREACHABLE, hint
from integrations.limits import retry_after

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

MISMATCH = "ChecksumMismatch"
"""The bytes that came are not those that the object has."""

DAMAGED = "the bytes were damaged on the way, or in the store: read them again"

_BUSY = "another call is changing the object: try again in a moment"
_CERTIFICATE = "the server's certificate is not trusted: check PIVOTAL_S3_ENDPOINT_URL"
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
_ENDPOINT = "check PIVOTAL_S3_ENDPOINT_URL and AWS_REGION, and that the network lets this machine reach it"
_LESS = "too many calls for what begins alike: call less often, or later"
_PERMISSION = "the credentials lack a permission there (s3:GetObject, s3:ListBucket, s3:PutObject, s3:DeleteObject)"
_REGION = "set AWS_REGION to the region of the bucket"
_TROUBLE = "the store is in trouble: run again later, and check PIVOTAL_S3_ENDPOINT_URL"
_HINTS = {
    "403": _PERMISSION,
    "404": "check bucket and key; capital letters count",
    "409": _BUSY,
    "412": "the object has changed meanwhile; run again",
    "AccessDenied": _PERMISSION,
    "AuthorizationHeaderMalformed": _REGION,
    "BadDigest": "the bytes were damaged on the way: send them again",
    "BucketNotEmpty": "delete what is in it first",
    "ConditionalRequestConflict": _BUSY,
    "EntityTooLarge": "an object has at most 50 TB, and at most 10,000 parts: ask for a larger part_size",
    "EntityTooSmall": "every part but the last one has at least 5 MB: ask for a larger part_size",
    "ExpiredToken": "the credentials have expired: get new ones",
    "IllegalLocationConstraintException": _REGION,
    "InvalidAccessKeyId": _CREDENTIALS,
    "InvalidRange": "the object is shorter than where the range starts",
    "InvalidToken": _CREDENTIALS,
    "KMS.NotFoundException": "check the KMS key's id and region",
    "NoSuchBucket": "check the bucket's name, and PIVOTAL_S3_ENDPOINT_URL",
    "NoSuchKey": "check the key; capital letters count",
    "NoSuchUpload": "somebody has aborted the upload meanwhile; upload again",
    "OperationAborted": _BUSY,
    "PermanentRedirect": _REGION,
    "PreconditionFailed": "the object has changed meanwhile; run again",
    "RequestTimeout": "the bytes came too slowly: try again, with smaller parts",
    "RequestTimeTooSkewed": "set this machine's clock",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is not the one of AWS_ACCESS_KEY_ID",
    "SlowDown": _LESS,
    "Throttling": _LESS,
    "ThrottlingException": _LESS,
}
_PASSING = frozenset(
    {
        "409",  # of HEAD, which has no body that could name it
        "BadDigest",  # damaged on the way
        "ConditionalRequestConflict",
        "OperationAborted",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
    }
)


class S3IntegrationError(IntegrationError):
    """S3 refused a call or could not be reached."""


def mistake(operation: str, message: str, advice: str) -> S3IntegrationError:
    """A call that is wrong, so that it is not made."""
    return S3IntegrationError(message, service="s3", operation=operation, code=NOT_SENT, hint=advice)


def answered(error: ClientError, operation: str, url: str, tries: int) -> S3IntegrationError:
    """What S3 refused, in the house's words.

    Args:
        error: botocore's error.
        operation: What was asked: `put_object`.
        url: What it was asked of: `s3://bucket/key`.
        tries: The tries so far.
    """
    answer: dict[str, Any] = error.response["ResponseMetadata"]
    code, message = (str(error.response["Error"].get(part, "")) for part in ("Code", "Message"))
    status = int(answer.get("HTTPStatusCode", 0))
    passing = status in {408, 429} or status >= 500 or code in _PASSING
    told = " ".join(dict.fromkeys((str(status), code)))
    advice = _HINTS.get(code) or (_TROUBLE if status >= 500 else hint(status))
    return S3IntegrationError(
        f"{url}: {message.strip().rstrip('.') or 'refused'} ({told}{_after(tries)})",
        service="s3",
        operation=operation,
        status=status,
        code=code,
        request_id=answer.get("RequestId") or None,
        retry_after=retry_after(answer.get("HTTPHeaders", {}).get("retry-after")),
        hint=advice,
        retryable=passing,
    )


def unanswered(error: BotoCoreError, operation: str, url: str, tries: int) -> S3IntegrationError:
    """What botocore could not do, in the house's words. Arguments: see `answered`."""
    code, advice, retryable = _kind(error)
    message = " ".join(str(error).removeprefix("Parameter validation failed:").split()).split(" or be an ARN")[0]
    return S3IntegrationError(
        f"{url}: {message}{f' ({_after(tries)[2:]})' if tries > 1 else ''}",
        service="s3",
        operation=operation,
        code=code,
        hint=advice,
        retryable=retryable,
    )


def _kind(error: BotoCoreError) -> tuple[str, str | None, bool]:
    """Code, hint, and whether a repetition can help."""
    from botocore import exceptions as known

    credentials = (known.NoCredentialsError, known.PartialCredentialsError, known.CredentialRetrievalError)
    not_reached = (known.EndpointConnectionError, known.ConnectTimeoutError, known.ProxyConnectionError)
    broken_off = (known.HTTPClientError, known.ConnectionError, known.IncompleteReadError)
    kinds: list[tuple[tuple[type[BotoCoreError], ...], tuple[str, str, bool]]] = [
        (credentials, (NOT_SENT, _CREDENTIALS, False)),
        ((known.SSLError,), (UNREACHABLE, _CERTIFICATE, False)),
        (not_reached, (UNREACHABLE, _ENDPOINT, True)),
        ((known.FlexibleChecksumError,), (MISMATCH, DAMAGED, True)),
        (broken_off, (NO_ANSWER, _ENDPOINT, True)),
        ((known.EndpointProviderError, known.NoRegionError), (NOT_SENT, _ENDPOINT, False)),
    ]
    return next((told for types, told in kinds if isinstance(error, types)), (NOT_SENT, None, False))


def _after(tries: int) -> str:
    return f", after {tries} attempts" if tries > 1 else ""
