"""The way to Stripe: its SDK, one retry budget, one circuit breaker, one key for one doing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from integrations.breaker import USUAL_BREAKER, BreakerPolicy
from integrations.calls import USUAL_BUDGET, Calls, Operation, RetryBudget, idempotency_key, silence
from integrations.metrics import State
from integrations.stripe.errors import StripeIntegrationError, explained

if TYPE_CHECKING:
    import stripe
    from pydantic import SecretStr

    from events.log import EventLog

T = TypeVar("T")
Changed = TypeVar("Changed", bound="stripe.StripeObject")

API_VERSION = "2026-10-28.endive"
"""The version whose shapes this project reads; Stripe goes on answering in it."""

_PAGE = 100
_MISSING = "resource_missing"
_FACTS = ("customer", "status", "livemode")
"""What a change's event says of the object: nothing personal."""


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


class Client:
    """Makes the calls that Stripe's operations are made of.

    Args:
        config: How Stripe is reached.
        events: Where changes are told; None: nowhere but in the log.
    """

    def __init__(self, config: StripeConfig, events: EventLog | None = None) -> None:
        self._config = config
        self._calls = Calls(
            "stripe", error=StripeIntegrationError, budget=config.retry, breaker=config.breaker, events=events
        )

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
    def account(self) -> str:
        """Whose events these are, by the key that opens them: secret."""
        return self._config.api_key.get_secret_value()

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
                raise explained(error, operation) from error

        return self._calls.call(Operation(operation), once)

    def change(
        self,
        operation: str,
        operation_id: str,
        work: Callable[[stripe.RequestOptions], Changed],
        told: str,
    ) -> Changed:
        """Makes a change, once for one operation id, and tells of it.

        Args:
            operation: What it is: `customers.create`.
            operation_id: The caller's own name of this one doing.
            work: The SDK's call; it is given the idempotency key.
            told: The event's type: `customer.created`.

        Raises:
            StripeIntegrationError: As for `call`.
        """
        key = idempotency_key(f"stripe.{operation}", operation_id)
        done = self.call(operation, lambda: work({"idempotency_key": key}))
        self.tell(told, done, key)
        return done

    def end(self, operation: str, work: Callable[[], T], look: Callable[[], T]) -> T:
        """Makes a call that ends something; what has ended already stays as it is.

        Stripe says "no such ..." of what has ended, too: also after an end whose answer got lost.

        Args:
            operation: What it is: `customers.delete`.
            work: The SDK's call.
            look: The SDK's call that reads what was to be ended.

        Raises:
            StripeIntegrationError: As for `call`; or there never was such a thing.
        """
        try:
            return self.call(operation, work)
        except StripeIntegrationError as missing:
            if missing.code != _MISSING:
                raise
            try:
                return self.call(operation, look)
            except StripeIntegrationError as error:
                raise (missing if error.code == _MISSING else error) from None

    def tell(self, what: str, done: stripe.StripeObject, key: str | None) -> None:
        """Tells of a change that is made.

        Args:
            what: The event's type: `customer.created`.
            done: What it was made to.
            key: The same for the same doing; None: told every time.
        """
        facts = {name: id_of(done[name]) for name in _FACTS if name in done}
        self._calls.announce(what, (what.split(".", maxsplit=1)[0], str(done["id"])), facts, key=key)

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


def id_of(reference: object) -> Any:  # noqa: ANN401  (whatever it is)
    """The id of what is referred to, whether it is expanded or not; anything else as it is."""
    return getattr(reference, "id", reference)
