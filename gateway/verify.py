"""What it takes to tell whether a webhook comes from whom it names, and is fresh."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Collection, Sequence

from starlette.datastructures import Headers

from gateway.refusal import RefusedError

_SECONDS = re.compile(r"[0-9]{1,11}")
_LONGEST_HEADER = 4096


def require(secrets: Collection[object], variable: str) -> None:
    """Refuses (503) if there is nothing to verify with.

    Args:
        secrets: What there is.
        variable: Where it would come from.
    """
    if not secrets:
        raise RefusedError(503, f"nothing to verify signatures with: {variable} is not set", hint=f"set {variable}")


def header(headers: Headers, name: str, *, missing: int = 401) -> str:
    """The one value of a header that proves something; ASCII, and not endless.

    Args:
        headers: The request's.
        name: The header's.
        missing: The status, if it is not there.
    """
    values = headers.getlist(name)
    if not values:
        raise RefusedError(missing, f"no {name} header")
    if len(values) > 1:
        raise RefusedError(400, f"{len(values)} {name} headers")
    # Signatures are compared in constant time, which raises TypeError on anything but ASCII.
    if not values[0].isascii() or len(values[0]) > _LONGEST_HEADER:
        raise RefusedError(400, f"{name} is not a signature")
    return values[0]


def is_secret(given: str, secrets: Sequence[str]) -> bool:
    """Whether it is one of ours; how long that takes does not tell how near it comes."""
    return any(hmac.compare_digest(given.encode(), secret.encode()) for secret in secrets)


def check_secret(given: str, secrets: Sequence[str]) -> None:
    """Refuses (401) what is not one of our secrets."""
    if not is_secret(given, secrets):
        raise RefusedError(401, f"no secret matched; {len(secrets)} tried")


def seconds(text: str, name: str) -> int:
    """A timestamp in seconds since 1970, from the header `name`."""
    if not _SECONDS.fullmatch(text):
        raise RefusedError(400, f"{name} has no timestamp in seconds")
    return int(text)


def in_base64(text: str, name: str) -> str:
    """The text, if it is base64, from the header `name`."""
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        raise RefusedError(400, f"{name} is not base64") from None
    return text


def in_utf8(body: bytes) -> str:
    """The body as text."""
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"the body is not UTF-8 (byte {error.start})") from None


def check_age(sent_at: int, tolerance: int) -> None:
    """Refuses (401) what is older, or from further in the future, than `tolerance` seconds."""
    age = int(time.time()) - sent_at
    if abs(age) > tolerance:
        when = f"{age} s old" if age > 0 else f"{-age} s in the future"
        raise RefusedError(401, f"timestamp {when}; {tolerance} s allowed", hint="compare this machine's clock")
