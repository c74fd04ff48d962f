"""The way to SendGrid: its SDK, one retry budget, one circuit breaker."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from integrations.breaker import USUAL_BREAKER, BreakerPolicy
from integrations.calls import NOT_SENT, USUAL_BUDGET, Calls, Change, Operation, RetryBudget, silence
from integrations.metrics import State
from integrations.sendgrid.errors import SendGridIntegrationError, garbled, refused, unreached

if TYPE_CHECKING:
    from pydantic import SecretStr
    from sendgrid import SendGridAPIClient

    from events.log import EventLog

Method = Literal["get", "post", "put", "patch", "delete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendGridConfig:
    """How SendGrid is reached.

    Args:
        api_key: The API key (`SG....`).
        api_base: Where SendGrid's API answers; `https://api.eu.sendgrid.com` for an account in the EU.
        timeout: Seconds to connect, and without a byte of the answer.
        retry: How often a call is tried.
        breaker: When SendGrid is left alone.
        job_timeout: Seconds that a job of SendGrid's (adding contacts, removing them) is followed.
        job_wait: Seconds between the first two looks at a job; they become longer, up to 30.

    Raises:
        ValueError: `api_base` is not an HTTP address.
    """

    api_key: SecretStr
    api_base: str = "https://api.sendgrid.com"
    timeout: float = 30.0
    retry: RetryBudget = USUAL_BUDGET
    breaker: BreakerPolicy | None = USUAL_BREAKER
    job_timeout: float = 900.0
    job_wait: float = 2.0

    def __post_init__(self) -> None:
        if not self.api_base.startswith(("https://", "http://")):
            raise ValueError(f"api_base: {self.api_base!r} does not begin with https://")


@dataclass(frozen=True, slots=True)
class Answer:
    """What SendGrid answered.

    Args:
        data: The JSON; None if there is none.
        headers: The headers.
    """

    data: Any
    headers: Mapping[str, str]


class Client:
    """Makes the calls that SendGrid's operations are made of.

    Args:
        config: How SendGrid is reached.
        events: Where changes are told; None: nowhere but in the log.
    """

    def __init__(self, config: SendGridConfig, events: EventLog | None = None) -> None:
        self.config, self.events = config, events
        self._calls = Calls(
            "sendgrid", error=SendGridIntegrationError, budget=config.retry, breaker=config.breaker, events=events
        )

    @cached_property
    def sdk(self) -> SendGridAPIClient:
        """The SDK's client: for what is not wrapped here. It retries nothing by itself."""
        from sendgrid import SendGridAPIClient

        silence("python_http_client")  # at DEBUG it logs the API key
        api = SendGridAPIClient(self.config.api_key.get_secret_value(), host=self.config.api_base.rstrip("/"))
        api.client.timeout = self.config.timeout  # the SDK would wait for ever
        # All calls share this dict, and the first one with a body would write to it while other threads read.
        api.client.request_headers["Content-Type"] = "application/json"
        return api

    @property
    def circuit(self) -> State:
        """Where the circuit breaker stands: `closed`, `half_open`, `open`."""
        return self._calls.circuit

    def ask(
        self,
        operation: str,
        method: Method,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        unsure: str | None = None,
        holds: str | None = None,
    ) -> Answer:
        """Makes a call within the retry budget.

        Args:
            operation: What it is: `templates.create`.
            method: HTTP method.
            path: Behind `/v3/`; ids in it are quoted.
            body: JSON.
            query: Parameters in the URL.
            unsure: For a call that must not be done twice: what to do if it is not certain whether it was done. It is
                repeated only if it certainly was not. None: it is safe to repeat.
            holds: What SendGrid's answer has in it.

        Raises:
            SendGridIntegrationError: SendGrid refused it, or could not be reached within the budget.
        """
        from python_http_client.exceptions import HTTPError

        _check(operation, body)
        lost = False

        def once() -> Answer:
            nonlocal lost
            try:
                answer = getattr(self.sdk.client._(path), method)(request_body=body, query_params=query)
                return Answer(_read(answer.body, holds), answer.headers)
            except HTTPError as error:
                if lost and method == "delete" and error.status_code == 404:
                    return Answer(None, error.headers)  # a try whose answer got lost has done it
                lost = lost or error.status_code >= 500
                raise refused(error, operation, unsure) from error
            except (OSError, http.client.HTTPException) as error:
                lost = True
                raise unreached(error, operation, unsure) from error
            except ValueError as error:
                raise garbled(operation, unsure) from error

        return self._calls.call(Operation(operation), once)

    def tell(self, what: str, aggregate: tuple[str, str], data: Mapping[str, Any], *, key: str | None = None) -> None:
        """Tells of a change that is made; see `Calls.announce`."""
        self._calls.announce(what, aggregate, data, key=key)

    def tell_each(self, what: str, changes: Sequence[Change]) -> None:
        """Tells of several; see `Calls.announce_each`."""
        self._calls.announce_each(what, changes)


def _read(body: bytes, holds: str | None) -> Any:  # noqa: ANN401  (it is JSON)
    data = json.loads(body) if body else None
    if holds is not None and not (isinstance(data, dict) and holds in data):
        raise ValueError(f"an answer without {holds}")
    return data


def _check(operation: str, body: Mapping[str, Any] | None) -> None:
    """Here, where it is certain that nothing was sent: the SDK would find out in mid-call."""
    try:
        json.dumps(body)
    except (TypeError, ValueError) as error:
        raise SendGridIntegrationError(
            f"SendGrid {operation}: {error}",
            operation=operation,
            code=NOT_SENT,
            hint="give what JSON knows: texts, numbers, booleans, lists and objects",
        ) from error


def batched(values: Iterable[str], size: int) -> Iterator[list[str]]:
    """The values in lists of at most `size`: what a request may have."""
    rest = iter(values)
    while some := [*islice(rest, size)]:
        yield some
