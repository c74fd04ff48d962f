"""An HTTP client, blocking and for asyncio: timeouts always, retries counted once, errors that are safe to show.

    with HttpClient("https://shop.example.com/api", service="shop", credential=Credential.bearer(token)) as shop:
        orders = shop.get("/orders", params={"page": 1}).data

`AsyncHttpClient` is the same with `async with` and `await`.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, Unpack
from urllib.parse import quote, quote_plus

import httpx

from errors import IntegrationError
from integrations.breaker import USUAL_BREAKER, BreakerPolicy
from integrations.calls import (
    NO_ANSWER,
    NOT_SENT,
    USUAL_BUDGET,
    Calls,
    Operation,
    RetryBudget,
    hint,
    silence,
)
from integrations.credentials import ClientCredentials, Credential
from integrations.exchange import USUAL_LIMITS, Limits, Options, Refusal, Response
from integrations.files import written
from integrations.limits import retry_wait, used_up
from integrations.metrics import State
from integrations.urls import absolute, clean_url, origin, same_origin
from integrations.wires import BlockingWire, LoopWire, finish, unanswered

if TYPE_CHECKING:
    from events.log import EventLog

__all__ = [
    "AsyncHttpClient",
    "ClientCredentials",
    "Credential",
    "HttpClient",
    "Limits",
    "Options",
    "Refusal",
    "Response",
    "clean_url",
    "same_origin",
]

_SAFE_TO_REPEAT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_NO_ANSWER_HINT = "check the address and the network; the service may be down"
_A = TypeVar("_A")

for _library in ("httpx", "httpcore"):  # they log whole URLs and headers
    silence(_library)


@dataclass(frozen=True, slots=True)
class _Task:
    """A call, ready to be made."""

    request: httpx.Request
    operation: Operation
    accept: Collection[int]
    limits: Limits
    to: Path | None


class _Client(Generic[_A]):
    """Calls one service. What it gives is `Response`, or awaitable.

    Args:
        base_url: What relative addresses are joined to; its origin is the one that gets the credential.
        service: The service's name, for errors, logs and metrics.
        headers: Sent with every call.
        credential: Sent with every call to the base URL's origin.
        secrets: Texts that never appear in an error, a log or a `Response.url`, beside the credential.
        limits: What one try may take.
        budget: How often a call that is safe to repeat is tried.
        breaker: When the service is left alone, since it is in trouble; None: never.
        error: What is raised.
        refusal: Reads what the service says about a call that it refused; None if it says nothing of its own.
        private_query: Whether queries hold personal data: no error and no `Response.url` shows them.
        events: Where the circuit's states are told, and what `calls.announce` is given.

    Attributes:
        calls: The retry budget, the circuit breaker and what is told of the calls.
    """

    _wire_of: ClassVar[type[BlockingWire | LoopWire]]

    def __init__(  # noqa: PLR0913  (all but the URL are named)
        self,
        base_url: str = "",
        *,
        service: str,
        headers: Mapping[str, str] | None = None,
        credential: Credential | ClientCredentials | None = None,
        secrets: Collection[str] = (),
        limits: Limits = USUAL_LIMITS,
        budget: RetryBudget = USUAL_BUDGET,
        breaker: BreakerPolicy | None = USUAL_BREAKER,
        error: type[IntegrationError] = IntegrationError,
        refusal: Callable[[Response], Refusal | None] = lambda _: None,
        private_query: bool = False,
        events: EventLog | None = None,
    ) -> None:
        self.service = service
        self._origin = origin(httpx.URL(base_url))
        self._credential = credential
        self._secrets, self._limits, self._budget, self._error_of = secrets, limits, budget, error
        self._refusal, self._private_query = refusal, private_query
        self.calls = Calls(service, error=error, budget=budget, breaker=breaker, events=events)
        self._free_at = 0.0
        self._wire = self._wire_of(
            self._authenticate, base_url=base_url, headers=headers, follow_redirects=True, max_redirects=5
        )

    @property
    def circuit(self) -> State:
        """Where the circuit breaker stands: `closed`, `half_open`, `open`."""
        return self.calls.circuit

    def get(self, url: str, **options: Unpack[Options]) -> _A:
        """`request("GET", ...)`."""
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Unpack[Options]) -> _A:
        """`request("POST", ...)`."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Unpack[Options]) -> _A:
        """`request("PUT", ...)`."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Unpack[Options]) -> _A:
        """`request("PATCH", ...)`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Unpack[Options]) -> _A:
        """`request("DELETE", ...)`."""
        return self.request("DELETE", url, **options)

    def request(self, method: str, url: str, **options: Unpack[Options]) -> _A:
        """Sends a request and reads the whole answer.

        Args:
            method: HTTP method.
            url: Absolute, or relative to the base URL.
            options: See `Options`.

        Raises:
            IntegrationError: No answer, or one with another status of 400 and above, after the retries that are
                allowed; or the service is elsewhere now and the request could not be repeated there (a POST that
                301 or 302 redirects becomes a GET).
        """
        return self._run(self._task(method, url, options))

    def download(self, url: str, to: Path, **options: Unpack[Options]) -> _A:
        """Streams what is at a URL into a file; no more than a piece of it is ever in memory.

        The file is there once it is whole: it replaces what was there before. A try that breaks off starts anew.

        Args:
            url: Absolute, or relative to the base URL.
            to: The file.
            options: See `Options`; without `limits`, there are no limits but the client's `timeout`.

        Raises:
            IntegrationError: As for `request`.
            OSError: The file cannot be written.
        """
        unlimited = Limits(self._limits.timeout, deadline=float("inf"), size=1 << 62)
        return self._run(self._task("GET", url, {"limits": unlimited, **options}, to))

    def without_secrets(self, text: str) -> str:
        """A text with stars in the place of the credential and the other secrets."""
        secrets = [*self._secrets, *(self._credential.secrets if self._credential else ())]
        for secret in map(str.strip, secrets):  # an error may show the end of its line as two characters
            for form in {secret, quote(secret, safe=""), quote_plus(secret)} - {""}:
                text = text.replace(form, "***")
        return text

    def _run(self, task: _Task) -> _A:
        raise NotImplementedError

    def _task(self, method: str, url: str, options: Options, to: Path | None = None) -> _Task:
        limits, key = options.get("limits", self._limits), options.get("idempotency_key")
        request = self._wire.client.build_request(
            method,
            httpx.URL(url).copy_merge_params(options.get("params") or {}),
            json=options.get("json"),
            content=options.get("content"),
            headers={**(options.get("headers") or {}), **({} if key is None else {"Idempotency-Key": key})},
            timeout=httpx.Timeout(limits.timeout, connect=min(limits.timeout, 10.0)),
        )
        repeatable = options.get("repeatable")
        named = options.get("operation")
        operation = Operation(
            self.without_secrets(named or f"{method} {request.url.path}"),
            repeatable=method in _SAFE_TO_REPEAT or key is not None if repeatable is None else repeatable,
            label=options.get("label") or named or method,
        )
        return _Task(request, operation, options.get("accept", ()), limits, to)

    async def _once(self, task: _Task) -> Response:
        answer = await self._answer(task)
        if answer.status == 401 and isinstance(self._credential, ClientCredentials):
            self._credential.forget(task.request)
            answer = await self._answer(task)
        if answer.status >= 400 and answer.status not in task.accept:
            raise self._refused(task, answer)
        return answer

    async def _answer(self, task: _Task) -> Response:
        await self._wire.sleep(max(0.0, self._free_at - time.monotonic()))
        start = time.monotonic()
        try:
            answer = await self._wire.send(task.request)
            try:
                body = await self._read(task, answer, start)
            finally:
                await self._wire.end(answer)
        except (httpx.TransportError, httpx.TooManyRedirects, httpx.DecodingError, httpx.InvalidURL) as error:
            raise self._broken(task, error) from error
        self._check_redirects(task, answer)
        self._leave_alone(answer.headers)
        return Response(
            answer.status_code,
            answer.reason_phrase,
            answer.headers,
            body,
            time.monotonic() - start,
            self._clean(answer.url),
            {str(rel): absolute(answer.url, link["url"]) for rel, link in answer.links.items()},
        )

    def _leave_alone(self, headers: Mapping[str, str]) -> None:
        """Lets the next call wait for the service's rate limit, unless that takes too long: it will then say so."""
        wait = used_up(headers)
        if wait and wait <= self._budget.longest_wait:
            self._free_at = time.monotonic() + wait

    def _check_redirects(self, task: _Task, answer: httpx.Response) -> None:
        became_get = [one for one in answer.history if one.status_code in {301, 302}]
        if became_get and answer.request.method != task.request.method:
            raise self._error(
                task,
                f"redirected to {self._clean(answer.url)}, where it would be a {answer.request.method}",
                status=became_get[0].status_code,
                hint="nothing was done there; use that URL",
            )

    async def _read(self, task: _Task, answer: httpx.Response, start: float) -> bytes:
        """The body, unless it is too long or trickles in for ever (a read timeout only sees the pauses)."""
        if task.to is None or answer.status_code >= 400:
            body = bytearray()
            async for chunk in self._pieces(task, answer, start):
                body += chunk
            return bytes(body)
        with written(task.to) as file:
            async for chunk in self._pieces(task, answer, start):
                file.write(chunk)
        return b""

    async def _pieces(self, task: _Task, answer: httpx.Response, start: float) -> AsyncIterator[bytes]:
        limits, size = task.limits, 0
        async for chunk in self._wire.chunks(answer):
            size += len(chunk)
            if size > limits.size:
                what = f"the answer has over {limits.size} bytes"
                raise self._error(task, what, status=answer.status_code, hint="ask for smaller pages")
            if time.monotonic() - start > limits.deadline:
                raise self._error(task, f"no end after {limits.deadline:g} s", code=NO_ANSWER, retryable=True)
            yield chunk

    def _refused(self, task: _Task, answer: Response) -> IntegrationError:
        status, headers = answer.status, answer.headers
        wait, own = retry_wait(headers), self._refusal(answer) or Refusal("")
        return self._error(
            task,
            f"answered {status} {answer.reason}"
            + ("" if wait is None else f", asks to wait {wait:.0f} s")
            + (own.message and f": {own.message}"),
            status=status,
            code=own.code,
            request_id=own.request_id or headers.get("x-request-id") or headers.get("request-id"),
            retry_after=wait,
            hint=own.hint or hint(status),
            retryable=status in {408, 429} or status >= 500,
        )

    def _broken(self, task: _Task, error: Exception) -> IntegrationError:
        code = unanswered(error)
        if code == NOT_SENT:
            return self._error(task, _reason(error), code=code)
        if isinstance(error, httpx.TransportError):
            return self._error(task, _reason(error), code=code, hint=_NO_ANSWER_HINT, retryable=True)
        return self._error(task, _reason(error), code="bad_answer")

    def _error(self, task: _Task, what: str, **details: Any) -> IntegrationError:  # noqa: ANN401
        request = task.request
        message = self.without_secrets(f"{self.service}: {request.method} {self._clean(request.url)}: {what}")
        return self._error_of(message, service=self.service, operation=task.operation.name, **details)

    async def _authenticate(self, request: httpx.Request) -> None:
        if self._credential is None:
            return
        credential = await self._current(self._credential)
        if origin(request.url) == self._origin:
            credential.put(request)
        else:
            credential.remove(request)

    async def _current(self, credential: Credential | ClientCredentials) -> Credential:
        """What to send now. A token is asked for once: the call that needs it is what is repeated."""
        if isinstance(credential, Credential):
            return credential
        async with self._wire.alone():
            return credential.token or credential.take(await self._ask(credential), self._error_of)

    async def _ask(self, credential: ClientCredentials) -> Response:
        giver = type(self)(
            credential.url, service="oauth2", credential=credential.client, limits=self._limits, error=self._error_of
        )
        try:
            return await giver._once(giver._task("POST", credential.url, credential.question))  # noqa: SLF001  (its own kind)
        finally:
            await giver._wire.close()  # noqa: SLF001

    def _clean(self, url: httpx.URL) -> str:
        return self.without_secrets(clean_url(str(url.copy_with(query=None) if self._private_query else url)))


class HttpClient(_Client[Response]):
    """A client that blocks; threads may share it. Arguments: see `_Client`."""

    _wire_of = BlockingWire

    def attempt(self, method: str, url: str, **options: Unpack[Options]) -> Response:
        """One try of `request`, for those who decide by themselves, within `calls`, whether there is another."""
        return finish(self._once(self._task(method, url, options)))

    def _run(self, task: _Task) -> Response:
        return self.calls.call(task.operation, lambda: finish(self._once(task)))

    def close(self) -> None:
        """Frees the connections."""
        finish(self._wire.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncHttpClient(_Client[Coroutine[Any, Any, Response]]):
    """A client for asyncio; tasks of one event loop may share it. Arguments: see `_Client`."""

    _wire_of = LoopWire

    def _run(self, task: _Task) -> Coroutine[Any, Any, Response]:
        return self.calls.acall(task.operation, lambda: self._once(task))

    async def close(self) -> None:
        """Frees the connections."""
        await self._wire.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _reason(error: Exception) -> str:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return f"{name} ({error})" if str(error) else name
