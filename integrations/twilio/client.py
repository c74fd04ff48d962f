"""The way to Twilio: the house's own HTTP client (see docs/decisions: the SDK is not worth its weight)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypedDict
from urllib.parse import urlencode

from integrations.breaker import USUAL_BREAKER, BreakerPolicy
from integrations.calls import USUAL_BUDGET, Calls, RetryBudget
from integrations.http import Credential, HttpClient, Limits, Response
from integrations.metrics import State
from integrations.twilio.errors import TwilioIntegrationError, refusal

if TYPE_CHECKING:
    from pydantic import SecretStr

    from events.log import EventLog

_VERSION = "2010-04-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class TwilioConfig:
    """How Twilio is reached.

    Args:
        account_sid: The account's SID (`AC...`).
        secret: The API key's secret; without an API key, the account's auth token.
        api_key: The API key's SID (`SK...`).
        api_base: Where Twilio's API answers; `https://api.dublin.ie1.twilio.com` for the region of Ireland.
        status_callback: Where Twilio tells what becomes of a message: the receiver's `/webhooks/twilio`.
        timeout: Seconds to connect, and without a byte of the answer.
        settle: Seconds after which a message that Twilio took is certainly in its list.
        retry: How often a call is tried.
        breaker: When Twilio is left alone.
    """

    account_sid: str
    secret: SecretStr
    api_key: str | None = None
    api_base: str = "https://api.twilio.com"
    status_callback: str | None = None
    timeout: float = 30.0
    settle: float = 10.0
    retry: RetryBudget = USUAL_BUDGET
    breaker: BreakerPolicy | None = USUAL_BREAKER


class Client:
    """Makes the calls that Twilio's operations are made of. Threads may share it.

    Args:
        config: How Twilio is reached.
        events: Where changes are told, and where what was sent before is looked up; None: nowhere.
    """

    def __init__(self, config: TwilioConfig, events: EventLog | None = None) -> None:
        self.config, self.events = config, events
        secret = config.secret.get_secret_value()
        self._http = HttpClient(
            config.api_base.rstrip("/"),
            service="twilio",
            credential=Credential.basic(config.api_key or config.account_sid, secret),
            secrets=[secret],
            limits=Limits(config.timeout),
            budget=config.retry,
            breaker=config.breaker,
            error=TwilioIntegrationError,
            refusal=refusal,
            private_query=True,
            events=events,
        )

    @property
    def calls(self) -> Calls:
        """The retry budget, the circuit breaker, and what is told."""
        return self._http.calls

    @property
    def circuit(self) -> State:
        """Where the circuit breaker stands: `closed`, `half_open`, `open`."""
        return self._http.circuit

    def path(self, resource: str) -> str:
        """Where a resource of the account is."""
        return f"/{_VERSION}/Accounts/{self.config.account_sid}/{resource}.json"

    def get(self, operation: str, path: str, params: Mapping[str, str] | None = None) -> Response:
        """Asks, as often as the budget allows.

        Args:
            operation: What for: `messages.get`.
            path: Where; what Twilio gives as the next page, too.
            params: Query parameters.

        Raises:
            TwilioIntegrationError: Twilio refused it, or could not be reached within the budget.
        """
        return self._http.get(path, operation=operation, params=params)

    def post(self, operation: str, path: str, form: Sequence[tuple[str, str]]) -> Response:
        """Makes a change that is safe to repeat. Raises as `get`."""
        return self._http.post(path, operation=operation, repeatable=True, **_encoded(form))

    def post_once(self, operation: str, path: str, form: Sequence[tuple[str, str]]) -> Response:
        """Makes one try of a change, for those who count the tries with `calls`. Raises as `get`."""
        return self._http.attempt("POST", path, operation=operation, **_encoded(form))

    def close(self) -> None:
        """Frees the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Encoded(TypedDict):
    content: bytes
    headers: Mapping[str, str]


def _encoded(form: Sequence[tuple[str, str]]) -> _Encoded:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return {"content": urlencode(form).encode(), "headers": headers}
