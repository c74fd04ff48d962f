"""An HTTP client: timeouts always, retries counted once, errors that are safe to show.

`HttpClient(base_url, service="shop").get("/orders", params={"page": 1}).data`
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, quote_plus, urlencode

import httpx

from errors import IntegrationError
from integrations.calls import RetryBudget, call, hint, retry_wait, silence, used_up

_SAFE_TO_REPEAT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_SECRET_NAME = re.compile(r"key|token|secret|passw|sig|auth|credential|session|code", re.IGNORECASE)
_USUAL = RetryBudget()

for _library in ("httpx", "httpcore"):  # they log whole URLs and headers
    silence(_library)


@dataclass(frozen=True, slots=True)
class Credential:
    """A header, or a query parameter, that authenticates.

    It is sent to the origin of the base URL only, also over redirects.
    """

    name: str
    value: str = field(repr=False)
    in_query: bool = False

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

    @property
    def secrets(self) -> Collection[str]:
        """What must not show."""
        return [self.value]

    def current(self) -> Credential:
        """Itself: it stays the same."""
        return self

    def renew(self, refused: httpx.Request) -> bool:  # noqa: ARG002  (see `ClientCredentials`)
        """Whether there can be another one, after the service refused this one: no."""
        return False

    def put(self, request: httpx.Request) -> None:
        """Adds it to a request."""
        if self.in_query:
            request.url = request.url.copy_set_param(self.name, self.value)
        else:
            request.headers[self.name] = self.value

    def remove(self, request: httpx.Request) -> None:
        """Takes it off a request that goes elsewhere."""
        if self.in_query:
            request.url = request.url.copy_remove_param(self.name)
        else:
            request.headers.pop(self.name, None)


class ClientCredentials:
    """A bearer token that a service gives for a client's id and secret (OAuth 2: RFC 6749, 4.4).

    It is asked for when first needed, shortly before it expires, and when it is refused. Threads share it.

    Args:
        token_url: Who gives tokens.
        client_id: The client's id.
        client_secret: Its secret; both are sent as RFC 6749, 2.3.1 prefers (`Authorization: Basic`).
        params: More that the token's request says: scope, audience, ...
    """

    def __init__(
        self, token_url: str, client_id: str, client_secret: str, *, params: Mapping[str, str] | None = None
    ) -> None:
        self._url, self._secret = token_url, client_secret
        self._form = {"grant_type": "client_credentials", **(params or {})}
        self._client = Credential.basic(quote_plus(client_id), quote_plus(client_secret))
        self._lock = threading.Lock()
        self._token: str | None = None
        self._until = 0.0

    @property
    def secrets(self) -> Collection[str]:
        """What must not show."""
        return [self._secret, *self._client.secrets, *([self._token] if self._token else [])]

    def current(self) -> Credential:
        """The token.

        Raises:
            IntegrationError: There is none to be had. It is tried once: the call that needs it is what is repeated.
        """
        with self._lock:
            if self._token is None or time.monotonic() >= self._until:
                self._token, lifetime = self._fetch()
                self._until = time.monotonic() + lifetime - min(30.0, lifetime / 10)
            return Credential.bearer(self._token)

    def renew(self, refused: httpx.Request) -> bool:
        """Forgets the token that a refused request had; one that another thread has fetched by now stays."""
        with self._lock:
            if self._token and refused.headers.get("Authorization") == Credential.bearer(self._token).value:
                self._token = None
        return True

    def _fetch(self) -> tuple[str, float]:
        """A token, and for how many seconds it holds."""
        once = RetryBudget(attempts=1)
        form = urlencode(self._form).encode()
        with HttpClient(self._url, service="oauth2", credential=self._client, budget=once) as http:
            answer = http.post(
                self._url,
                operation="token",
                content=form,
                headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
                accept={400, 401},
            )
        try:
            told = answer.data
            if answer.status < 400:
                return str(told["access_token"]), float(told.get("expires_in", "inf"))
            reason = str(told["error"])
        except (ValueError, KeyError, TypeError, AttributeError):
            reason = f"answered {answer.status} {answer.reason}, without a token"
        raise IntegrationError(
            f"oauth2: POST {answer.url}: {reason[:100]}",
            service="oauth2",
            operation="token",
            status=answer.status,
            hint="check the client's id and secret, the scope, and the token's URL",
        )


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
        credential: Credential | ClientCredentials | None = None,
        secrets: Collection[str] = (),
        limits: Limits = Limits(),
        budget: RetryBudget = _USUAL,
    ) -> None:
        self.service = service
        self._origin = _origin(httpx.URL(base_url))
        self._credential = credential
        self._secrets = secrets
        self._limits, self._budget = limits, budget
        self._free_at = 0.0
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

    def request(  # noqa: PLR0913  (all but the method and the URL are named)
        self,
        method: str,
        url: str,
        *,
        operation: str | None = None,
        params: Mapping[str, str | int | float | bool] | None = None,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
        accept: Collection[int] = (),
    ) -> Response:
        """Sends a request and reads the whole answer.

        Args:
            method: HTTP method.
            url: Absolute, or relative to the base URL.
            operation: What the call does, for errors; the method and the path if not given.
            params: Query parameters, added to those of `url`.
            json: Body.
            content: Body, as it is; `headers` say what it is.
            headers: Beside those of the client.
            repeatable: Whether a second try is safe; GET, HEAD, OPTIONS, PUT and DELETE are, others are with
                an idempotency key.
            accept: Statuses of 400 and above that are answers, too.

        Raises:
            IntegrationError: No answer, or one with another status of 400 and above, after the retries that are
                allowed; or the service is elsewhere now and the request could not be repeated there (a POST that
                301 or 302 redirects becomes a GET).
        """
        request = self._client.build_request(
            method, httpx.URL(url).copy_merge_params(params or {}), json=json, content=content, headers=headers
        )
        operation = operation or f"{method} {request.url.path}"
        if method in _SAFE_TO_REPEAT if repeatable is None else repeatable:
            return call(lambda: self._once(request, operation, accept), self._budget)
        return self._once(request, operation, accept)

    def without_secrets(self, text: str) -> str:
        """A text with stars in the place of the credential and the other secrets."""
        for secret in [*self._secrets, *(self._credential.secrets if self._credential else ())]:
            for form in {secret, quote(secret, safe=""), quote_plus(secret)} - {""}:
                text = text.replace(form, "***")
        return text

    def close(self) -> None:
        """Frees the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _once(self, request: httpx.Request, operation: str, accept: Collection[int]) -> Response:
        answer = self._answer(request, operation)
        if answer.status == 401 and self._credential and self._credential.renew(request):
            answer = self._answer(request, operation)
        if answer.status >= 400 and answer.status not in accept:
            raise self._refused(request, answer, operation)
        return answer

    def _answer(self, request: httpx.Request, operation: str) -> Response:
        time.sleep(max(0.0, self._free_at - time.monotonic()))
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
        self._check_redirects(request, answer, operation)
        self._leave_alone(answer.headers)
        return Response(
            answer.status_code,
            answer.reason_phrase,
            answer.headers,
            body,
            time.monotonic() - start,
            self._clean(answer.url),
            {str(rel): _absolute(answer.url, link["url"]) for rel, link in answer.links.items()},
        )

    def _leave_alone(self, headers: Mapping[str, str]) -> None:
        """Lets the next call wait for the service's rate limit, unless that takes too long: it will then say so."""
        wait = used_up(headers)
        if wait and wait <= self._budget.longest_wait:
            self._free_at = time.monotonic() + wait

    def _check_redirects(self, request: httpx.Request, answer: httpx.Response, operation: str) -> None:
        became_get = [one for one in answer.history if one.status_code in {301, 302}]
        if became_get and answer.request.method != request.method:
            raise self._error(
                request,
                operation,
                f"redirected to {self._clean(answer.url)}, where it would be a {answer.request.method}",
                hint="nothing was done there; use that URL",
            )

    def _read(self, answer: httpx.Response, operation: str, start: float) -> bytes:
        """The body, unless it is too long or trickles in for ever (a read timeout only sees the pauses)."""
        chunks, size = [], 0
        for chunk in answer.iter_bytes():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._limits.size:
                raise self._error(
                    answer.request,
                    operation,
                    f"the answer has over {self._limits.size} bytes",
                    hint="ask for smaller pages",
                )
            if time.monotonic() - start > self._limits.deadline:
                raise self._error(
                    answer.request, operation, f"no end after {self._limits.deadline:g} s", retryable=True
                )
        return b"".join(chunks)

    def _refused(self, request: httpx.Request, answer: Response, operation: str) -> IntegrationError:
        status, headers = answer.status, answer.headers
        wait = retry_wait(headers)
        return self._error(
            request,
            operation,
            f"answered {status} {answer.reason}" + ("" if wait is None else f", asks to wait {wait:.0f} s"),
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
        message = self.without_secrets(f"{self.service}: {request.method} {self._clean(request.url)}: {what}")
        return IntegrationError(message, service=self.service, operation=operation, **details)

    def _authenticate(self, request: httpx.Request) -> None:
        if self._credential is None:
            return
        credential = self._credential.current()
        if _origin(request.url) == self._origin:
            credential.put(request)
        else:
            credential.remove(request)

    def _clean(self, url: httpx.URL) -> str:
        return self.without_secrets(clean_url(str(url)))


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


def _absolute(url: httpx.URL, link: str) -> str:
    """Where a link leads; the link itself if it leads nowhere."""
    try:
        return str(url.join(link))
    except httpx.InvalidURL:
        return link


def _reason(error: Exception) -> str:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return f"{name} ({error})" if str(error) else name
