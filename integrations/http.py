"""An HTTP client: timeouts always, retries counted once, errors that are safe to show.

`HttpClient(base_url, service="shop").get("/orders", params={"page": 1}).data`
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, quote_plus

import httpx

from errors import IntegrationError
from integrations.calls import RetryBudget, call, hint, retry_after, silence

_SAFE_TO_REPEAT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_SECRET_NAME = re.compile(r"key|token|secret|passw|sig|auth|credential|session|code", re.IGNORECASE)
_USUAL = RetryBudget()

for _library in ("httpx", "httpcore"):  # they log whole URLs and headers
    silence(_library)


@dataclass(frozen=True, slots=True)
class Credential:
    """One header that authenticates. It is sent to the origin of the base URL only, also over redirects."""

    header: str
    value: str = field(repr=False)

    @classmethod
    def bearer(cls, token: str) -> Credential:
        """`Authorization: Bearer ...` (RFC 6750)."""
        return cls("Authorization", f"Bearer {token}")

    @classmethod
    def basic(cls, username: str, password: str) -> Credential:
        """`Authorization: Basic ...` (RFC 7617)."""
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        return cls("Authorization", f"Basic {pair}")

    @classmethod
    def api_key(cls, key: str, header: str = "X-API-Key") -> Credential:
        """A key in a header of the service's own choice."""
        return cls(header, key)


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


class HttpClient:
    """Calls one service.

    Args:
        base_url: What relative addresses are joined to; its origin is the one that gets the credential.
        service: The service's name, for errors and logs.
        headers: Sent with every call.
        credential: Sent with every call to the base URL's origin.
        secrets: Texts that never appear in an error, a log or a `Response.url`, beside the credential.
        limits: What one try may take.
        budget: How often a call that is safe to repeat is tried.
    """

    def __init__(
        self,
        base_url: str = "",
        *,
        service: str,
        headers: Mapping[str, str] | None = None,
        credential: Credential | None = None,
        secrets: Collection[str] = (),
        limits: Limits = Limits(),
        budget: RetryBudget = _USUAL,
    ) -> None:
        self.service = service
        self._origin = _origin(httpx.URL(base_url))
        self._credential = credential
        self._secrets = [*secrets, *([credential.value] if credential else [])]
        self._limits, self._budget = limits, budget
        self._client = httpx.Client(
            base_url=base_url,
            headers=headers,
            timeout=httpx.Timeout(limits.timeout, connect=min(limits.timeout, 10.0)),
            follow_redirects=True,
            max_redirects=5,
            event_hooks={"request": [self._authenticate]},
        )

    def get(self, url: str, **options: Any) -> Response:  # noqa: ANN401  (see `request`)
        """`request("GET", ...)`."""
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> Response:  # noqa: ANN401  (see `request`)
        """`request("POST", ...)`."""
        return self.request("POST", url, **options)

    def request(
        self,
        method: str,
        url: str,
        *,
        operation: str | None = None,
        params: Mapping[str, str | int | float | bool] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
    ) -> Response:
        """Sends a request and reads the whole answer.

        Args:
            method: HTTP method.
            url: Absolute, or relative to the base URL.
            operation: What the call does, for errors; the method and the path if not given.
            params: Query parameters, added to those of `url`.
            json: Body.
            headers: Beside those of the client.
            repeatable: Whether a second try is safe; GET, HEAD, OPTIONS, PUT and DELETE are, others are with
                an idempotency key.

        Raises:
            IntegrationError: No answer, or one with a status of 400 and above, after the retries that are allowed.
        """
        request = self._client.build_request(
            method, httpx.URL(url).copy_merge_params(params or {}), json=json, headers=headers
        )
        operation = operation or f"{method} {request.url.path}"
        if method in _SAFE_TO_REPEAT if repeatable is None else repeatable:
            return call(lambda: self._once(request, operation), self._budget)
        return self._once(request, operation)

    def close(self) -> None:
        """Frees the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _once(self, request: httpx.Request, operation: str) -> Response:
        start = time.monotonic()
        try:
            answer = self._client.send(request, stream=True)
            try:
                body = self._read(answer, operation, start)
            finally:
                answer.close()
        except httpx.TransportError as error:
            retryable = not isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError)
            raise self._error(request, operation, _reason(error), retryable=retryable) from None
        except (httpx.TooManyRedirects, httpx.DecodingError, httpx.InvalidURL) as error:
            raise self._error(request, operation, _reason(error)) from None
        if answer.status_code >= 400:
            raise self._refused(answer, operation)
        return Response(
            answer.status_code,
            answer.reason_phrase,
            answer.headers,
            body,
            time.monotonic() - start,
            self._clean(answer.url),
            {str(rel): str(answer.url.join(link["url"])) for rel, link in answer.links.items()},
        )

    def _read(self, answer: httpx.Response, operation: str, start: float) -> bytes:
        """The body, unless it is too long or trickles in for ever (a read timeout only sees the pauses)."""
        chunks, size = [], 0
        for chunk in answer.iter_bytes():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._limits.size:
                raise self._error(answer.request, operation, f"the answer has over {self._limits.size} bytes")
            if time.monotonic() - start > self._limits.deadline:
                raise self._error(
                    answer.request, operation, f"no end after {self._limits.deadline:g} s", retryable=True
                )
        return b"".join(chunks)

    def _refused(self, answer: httpx.Response, operation: str) -> IntegrationError:
        status, headers = answer.status_code, answer.headers
        wait = retry_after(headers.get("retry-after"))
        return self._error(
            answer.request,
            operation,
            f"answered {status} {answer.reason_phrase}" + ("" if wait is None else f", asks to wait {wait:.0f} s"),
            status=status,
            request_id=headers.get("x-request-id") or headers.get("request-id"),
            retry_after=wait,
            hint=hint(status),
            retryable=status in {408, 429} or status >= 500,
        )

    def _error(
        self,
        request: httpx.Request,
        operation: str,
        what: str,
        **details: Any,  # noqa: ANN401
    ) -> IntegrationError:
        message = self._scrub(f"{self.service}: {request.method} {self._clean(request.url)}: {what}")
        return IntegrationError(message, service=self.service, operation=operation, **details)

    def _authenticate(self, request: httpx.Request) -> None:
        if self._credential is None:
            return
        if _origin(request.url) == self._origin:
            request.headers[self._credential.header] = self._credential.value
        else:
            request.headers.pop(self._credential.header, None)

    def _clean(self, url: httpx.URL) -> str:
        return self._scrub(clean_url(str(url)))

    def _scrub(self, text: str) -> str:
        for secret in self._secrets:
            for form in {secret, quote(secret, safe=""), quote_plus(secret)} - {""}:
                text = text.replace(form, "***")
        return text


def clean_url(url: str) -> str:
    """The URL without user, password and the values of query parameters whose names tell of a secret."""
    parts = httpx.URL(url)
    query = "&".join(
        f"{quote_plus(name)}={'***' if _SECRET_NAME.search(name) else quote_plus(value)}"
        for name, value in parts.params.multi_items()
    )
    return str(parts.copy_with(userinfo=b"", query=query.encode() or None, fragment=None))


def same_origin(one: str, other: str) -> bool:
    """Whether two absolute URLs have scheme, host and port in common: what may see the same credential."""
    return _origin(httpx.URL(one)) == _origin(httpx.URL(other))


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _reason(error: Exception) -> str:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return f"{name} ({error})" if str(error) else name
