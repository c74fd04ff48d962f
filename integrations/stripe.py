"""Stripe, through its official SDK: typed parameters and objects, one retry budget, one family of errors.

    stripe = Stripe(StripeConfig(api_key=SecretStr("sk_...")))
    customer = stripe.customers.create({"email": "ada@example.com"}, operation_id="signup-4711")

Parameters and objects are the SDK's own types, so that everything Stripe can do with an operation can be said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from errors import IntegrationError
from integrations.breaker import USUAL_BREAKER, BreakerPolicy
from integrations.calls import (
    NO_ANSWER,
    UNREACHABLE,
    USUAL_BUDGET,
    Calls,
    Operation,
    RetryBudget,
    hint,
    idempotency_key,
    silence,
    without_addresses,
)
from integrations.limits import retry_after
from integrations.metrics import State

if TYPE_CHECKING:
    import stripe
    from pydantic import SecretStr
    from stripe.params import (
        CustomerCreateParams,
        CustomerListParams,
        EventListParams,
        SubscriptionCancelParams,
        SubscriptionCreateParams,
    )

T = TypeVar("T")

API_VERSION = "2026-10-28.endive"
"""The version whose shapes this project reads; Stripe goes on answering in it."""

_PAGE = 100
_HINTS = {
    ("APIConnectionError", None): "check the network and PIVOTAL_STRIPE_API_BASE; Stripe may be down",
    ("IdempotencyError", 400): "this operation id was used before, with other parameters: give every doing its own",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeConfig:
    """How Stripe is reached.

    Args:
        api_key: The secret key (`sk_...`), or a restricted one (`rk_...`).
        api_base: Where Stripe's API answers.
        connect_timeout: Seconds.
        read_timeout: Seconds without a byte of the answer.
        retry: How often a call is tried.
        breaker: When Stripe is left alone.
    """

    api_key: SecretStr
    api_base: str = "https://api.stripe.com"
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    retry: RetryBudget = USUAL_BUDGET
    breaker: BreakerPolicy | None = USUAL_BREAKER


class StripeIntegrationError(IntegrationError):
    """Stripe refused a call or could not be reached."""


class Stripe:
    """Stripe's operations, by resource.

    Args:
        config: How Stripe is reached.
    """

    def __init__(self, config: StripeConfig) -> None:
        self._config = config
        self._calls = Calls("stripe", error=StripeIntegrationError, budget=config.retry, breaker=config.breaker)
        self.customers = Customers(self)
        self.subscriptions = Subscriptions(self)
        self.events = Events(self)

    @cached_property
    def sdk(self) -> stripe.StripeClient:
        """The SDK's client: for what is not wrapped here. It retries nothing by itself."""
        import stripe

        # Otherwise the SDK writes an id into the home folder and sends it, and timings, along with every call.
        stripe.enable_telemetry = False
        silence("stripe")
        silence("urllib3")  # at DEBUG it logs URLs, with the addresses that lists are filtered by
        timeouts = (self._config.connect_timeout, self._config.read_timeout)
        return stripe.StripeClient(
            self._config.api_key.get_secret_value(),
            base_addresses={"api": self._config.api_base.rstrip("/")},
            http_client=stripe.RequestsClient(timeout=timeouts),
            max_network_retries=0,
            stripe_version=API_VERSION,
        )

    @property
    def circuit(self) -> State:
        """Where the circuit breaker stands: `closed`, `half_open`, `open`."""
        return self._calls.circuit

    def call(self, operation: str, work: Callable[[], T]) -> T:
        """Makes a call of the SDK within the retry budget.

        Args:
            operation: What it is: `customers.create`.
            work: The call; it must be safe to repeat (GET, DELETE, or with an idempotency key).

        Raises:
            StripeIntegrationError: Stripe refused it, or could not be reached within the budget.
        """
        import stripe

        def once() -> T:
            try:
                return work()
            except stripe.StripeError as error:
                raise _explained(error, operation) from error

        return self._calls.call(Operation(operation), once)

    def every(self, operation: str, fetch: Callable[[Any], Any], params: Mapping[str, Any]) -> Iterator[Any]:
        """Each object of a list, page by page; every page has the whole retry budget.

        Args:
            operation: What it is: `customers.list`.
            fetch: The SDK's list call.
            params: Its filters.

        Raises:
            StripeIntegrationError: As for `call`.
        """
        cursor: dict[str, str] = {}
        while True:
            asked = {"limit": _PAGE, **params, **cursor}
            page = self.call(operation, partial(fetch, asked))
            yield from page.data
            if not page.has_more:
                return
            cursor = {"starting_after": page.data[-1].id}


class Customers:
    """Stripe's customers."""

    def __init__(self, client: Stripe) -> None:
        self._client = client

    def create(self, params: CustomerCreateParams, *, operation_id: str) -> stripe.Customer:
        """Creates a customer.

        Args:
            params: What the customer is, in Stripe's words.
            operation_id: The caller's own name of this one doing; the same id never creates a second customer.

        Raises:
            StripeIntegrationError: Stripe refused it, or could not be reached within the budget.
        """
        create = self._client.sdk.v1.customers.create
        options = _options("customers.create", operation_id)
        return self._client.call("customers.create", lambda: create(params, options))

    def list(self, params: CustomerListParams | None = None) -> Iterator[stripe.Customer]:
        """Every customer, newest first.

        Args:
            params: Filters, in Stripe's words: `{"created": {"gte": 1767225600}}`.

        Raises:
            StripeIntegrationError: Stripe refused it, or could not be reached within the budget.
        """
        return self._client.every("customers.list", self._client.sdk.v1.customers.list, params or {})


class Subscriptions:
    """Stripe's subscriptions."""

    def __init__(self, client: Stripe) -> None:
        self._client = client

    def create(self, params: SubscriptionCreateParams, *, operation_id: str) -> stripe.Subscription:
        """Creates a subscription.

        Args:
            params: Customer, items and more, in Stripe's words.
            operation_id: The caller's own name of this one doing; the same id never creates a second subscription.

        Raises:
            StripeIntegrationError: Stripe refused it, or could not be reached within the budget.
        """
        create = self._client.sdk.v1.subscriptions.create
        options = _options("subscriptions.create", operation_id)
        return self._client.call("subscriptions.create", lambda: create(params, options))

    def cancel(self, id_: str, params: SubscriptionCancelParams | None = None) -> stripe.Subscription:
        """Ends a subscription now; one that has ended already stays as it is.

        Args:
            id_: The subscription's id (`sub_...`).
            params: Why, in Stripe's words.

        Raises:
            StripeIntegrationError: There is no such subscription, or Stripe could not be reached within the budget.
        """
        service = self._client.sdk.v1.subscriptions
        try:
            return self._client.call("subscriptions.cancel", lambda: service.cancel(id_, params))
        except StripeIntegrationError as error:
            if error.code != "resource_missing":
                raise
        # Stripe says "no such subscription" of an ended one, too: also after a cancel whose answer got lost.
        return self._client.call("subscriptions.retrieve", lambda: service.retrieve(id_))


class Events:
    """What happened in Stripe, for the last 30 days."""

    def __init__(self, client: Stripe) -> None:
        self._client = client

    def list(self, params: EventListParams | None = None) -> Iterator[stripe.Event]:
        """Every event, newest first.

        Args:
            params: Filters, in Stripe's words: `{"types": ["invoice.paid"]}`.

        Raises:
            StripeIntegrationError: Stripe refused it, or could not be reached within the budget.
        """
        return self._client.every("events.list", self._client.sdk.v1.events.list, params or {})


def _options(operation: str, operation_id: str) -> stripe.RequestOptions:
    return {"idempotency_key": idempotency_key(f"stripe.{operation}", operation_id)}


def _explained(error: stripe.StripeError, operation: str) -> StripeIntegrationError:
    import stripe

    headers = _headers(error)
    code = error.code or (error.error.code if error.error else None)
    if isinstance(error, stripe.APIConnectionError):
        code = UNREACHABLE if _unsent(error.__cause__) else NO_ANSWER
    return StripeIntegrationError(
        f"Stripe {operation}: {_what(error)}",
        service="stripe",
        operation=operation,
        status=error.http_status,
        code=code,
        request_id=headers.get("request-id"),
        retry_after=retry_after(headers.get("retry-after")),
        hint=_HINTS.get((type(error).__name__, error.http_status)) or hint(error.http_status),
        retryable=_can_help(error, headers.get("stripe-should-retry")),
    )


def _unsent(cause: BaseException | None) -> bool:
    """Whether no connection came about, as `requests` tells it: it calls a reset on the way the same."""
    import requests
    from urllib3.exceptions import MaxRetryError, NewConnectionError

    if isinstance(cause, requests.ConnectTimeout):
        return True
    reason = cause.args[0] if isinstance(cause, requests.ConnectionError) and cause.args else None
    return isinstance(reason, MaxRetryError) and isinstance(reason.reason, NewConnectionError)


def _what(error: stripe.StripeError) -> str:
    """What went wrong, in Stripe's words where it has some: a proxy's page of HTML is not repeated."""
    import stripe

    if isinstance(error, stripe.APIConnectionError):
        return f"no answer ({type(error.__cause__).__name__})"
    if error.error is None:
        return f"answered {error.http_status} with something that is not Stripe's"
    return f"{error.http_status} {without_addresses(error.user_message or 'without a message')}"


def _can_help(error: stripe.StripeError, advice: str | None) -> bool:
    """Whether to try again: as Stripe advises, else where its own SDK would, and when it limits the rate."""
    import requests
    import stripe

    if isinstance(error, stripe.APIConnectionError):
        # The SDK gives up on half an answer; the idempotency key makes it safe to ask again.
        return error.should_retry or isinstance(error.__cause__, requests.exceptions.ChunkedEncodingError)
    if advice is not None:
        return advice == "true"
    return error.http_status in {408, 409, 429} or (error.http_status or 0) >= 500


def _headers(error: stripe.StripeError) -> Mapping[str, str]:
    # For an answer that is not JSON, the SDK passes the headers where the body belongs.
    if not error.headers and error.json_body is not None and error.error is None:
        return cast(Mapping[str, str], error.json_body)
    return error.headers or {}
