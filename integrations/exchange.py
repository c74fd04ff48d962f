"""What an HTTP call says, and what comes back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict


@dataclass(frozen=True, slots=True)
class Response:
    """What a service answered.

    Args:
        status: HTTP status.
        reason: Its text: `OK`.
        headers: Header -> value; names in any case.
        body: The bytes, decompressed.
        elapsed: Seconds from the request to the last byte.
        url: Where the answer came from, free of secrets.
        links: Relation -> absolute URL, from the `Link` header (RFC 8288).
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    elapsed: float
    url: str
    links: Mapping[str, str] = field(repr=False)

    @property
    def data(self) -> Any:  # noqa: ANN401  (JSON can be anything)
        """The body as JSON, None if there is none; numbers with a fraction are floats.

        Raises:
            ValueError: The body is not JSON.
        """
        import orjson

        return orjson.loads(self.body) if self.body else None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a service says, in its own words, about a call that it refused; what is None is told by the status.

    Args:
        message: Free of secrets and of personal data.
        code: The service's own name of the failure.
        hint: The next step.
        request_id: The service's own id of the call.
    """

    message: str
    code: str | None = None
    hint: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one try of a call may take.

    Args:
        timeout: Seconds to wait for a connection and between two pieces of an answer.
        deadline: Seconds altogether.
        size: The largest answer that is read, in bytes.
    """

    timeout: float = 30.0
    deadline: float = 120.0
    size: int = 256 << 20


USUAL_LIMITS = Limits()


class Options(TypedDict, total=False):
    """What a call may say.

    Args:
        operation: What it does, for errors, logs and metrics; the method and the path if not given.
        label: What the metrics call it, if `operation` is not one of a few: `page` of `page 7`.
        params: Query parameters, added to those of the URL.
        json: Body.
        content: Body, as it is; `headers` say what it is.
        headers: Beside those of the client.
        idempotency_key: Sent as `Idempotency-Key`; the call is then safe to repeat.
        repeatable: Whether a second try is safe; GET, HEAD, OPTIONS, PUT and DELETE are, others with a key are.
        accept: Statuses of 400 and above that are answers, too.
        limits: In the place of the client's.
    """

    operation: str
    label: str
    params: Mapping[str, str | int | float | bool] | None
    json: object
    content: bytes | None
    headers: Mapping[str, str] | None
    idempotency_key: str
    repeatable: bool | None
    accept: Collection[int]
    limits: Limits
