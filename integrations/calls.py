"""What a call to an outside service needs, whichever service it is.

One retry budget, one circuit breaker, one key per operation; metrics, logs and events.
"""

from __future__ import annotations

import logging
import random
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

import stamina
import stamina.instrumentation

from errors import EventLogError, IntegrationError
from integrations import metrics
from integrations.breaker import Breaker, BreakerPolicy, CircuitOpenError
from integrations.metrics import State

if TYPE_CHECKING:
    from events.log import EventLog

_log = logging.getLogger(__name__)

UNREACHABLE = "unreachable"
"""No connection: nothing was sent."""
NO_ANSWER = "no_answer"
"""No answer, or half of one: what was asked may have been done."""
NOT_SENT = "not_sent"
"""A mistake in the request itself; the service knows nothing of it."""
CIRCUIT_OPEN = "circuit_open"
"""The service was not called, since its last calls failed."""

_OPERATIONS = uuid.UUID("6f1c3c0e-6a53-4b0e-9a68-0d0b3f5a7c11")
_WRONG = "the request itself is wrong: sent again as it is, it will be refused again"
_HINTS = {
    400: _WRONG,
    401: "check the API key: it is wrong, expired, or of another environment",
    402: "the payment was refused; ask for another payment method",
    403: "the API key lacks a permission, or the sender is not verified",
    404: "check the id; it may belong to another account or environment",
    408: "the service gave up waiting for the request; try again",
    409: "another call with the same key is still at work; try again in a moment",
    422: _WRONG,
    429: "the service limits how often it is called; call less often or later",
}

T = TypeVar("T")
Change = tuple[tuple[str, str], Mapping[str, Any], str | None]
"""Kind and id of what has changed, what is to be said of it, and the key of this one doing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudget:
    """How often, and how patiently, one call is tried. The only retries there are: the SDKs' own are off.

    Args:
        attempts: Tries at most, the first one included.
        first_wait: Seconds; the ceiling doubles with every failure.
        longest_wait: Seconds; a service that asks for more is not waited for.

    Raises:
        ValueError: No try at all, or a wait below 0.
    """

    attempts: int = 4
    first_wait: float = 0.5
    longest_wait: float = 20.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.first_wait, self.longest_wait) < 0:
            raise ValueError(f"{self}: at least one attempt, and no wait below 0")


USUAL_BUDGET = RetryBudget()


@dataclass(frozen=True, slots=True)
class Operation:
    """What is asked of a service.

    Args:
        name: `customers.create`.
        repeatable: Whether a second try is safe: it reads, it is idempotent, or it carries a key.
        label: What the metrics call it, if its name is not one of a few.
    """

    name: str
    repeatable: bool = True
    label: str | None = None


class Calls:
    """The calls to one service: each within its budget, all behind one circuit breaker; counted, timed and logged.

    Args:
        service: The service's name.
        error: The service's own error.
        budget: How often one call is tried.
        breaker: When the service is left alone; None: never.
        events: Where changes, and the circuit's states, are told.
    """

    def __init__(
        self,
        service: str,
        *,
        error: type[IntegrationError] = IntegrationError,
        budget: RetryBudget,
        breaker: BreakerPolicy | None,
        events: EventLog | None = None,
    ) -> None:
        self.service = service
        self._error, self._budget, self._events = error, budget, events
        self._breaker = None if breaker is None else Breaker(service, breaker, self._circuit)

    @property
    def circuit(self) -> State:
        """Where the circuit breaker stands."""
        return "closed" if self._breaker is None else self._breaker.state

    def call(self, operation: Operation, work: Callable[[], T]) -> T:
        """Does `work`, again while its error says that this can help, and the call is safe to repeat.

        Waits by exponential backoff with full jitter, or as long as the service asked for (Retry-After). A call that
        has begun has its whole budget, whatever the circuit breaker does meanwhile.

        Args:
            operation: What it is.
            work: Makes one try on the wire; raises `IntegrationError`.

        Raises:
            IntegrationError: The last one; or the service is not called, since its circuit is open.
        """
        probe = self._admit(operation)
        for attempt in stamina.retry_context(**self._tries(operation, probe=probe)):
            with attempt, self._watched(operation, attempt.num, probe=probe):
                return work()
        raise AssertionError("stamina yields at least one attempt")

    async def acall(self, operation: Operation, work: Callable[[], Awaitable[T]]) -> T:
        """`call`, for asyncio."""
        probe = self._admit(operation)
        async for attempt in stamina.retry_context(**self._tries(operation, probe=probe)):
            with attempt, self._watched(operation, attempt.num, probe=probe):
                return await work()
        raise AssertionError("stamina yields at least one attempt")

    def announce(self, what: str, aggregate: tuple[str, str], data: Mapping[str, Any], *, key: str | None) -> None:
        """Tells the log and the event log of a change that is made.

        The change stands: an event log that is out of order must not make it look like a failure.

        Args:
            what: `customer.created`; the event's type is `pivotal.<service>.customer.created`.
            aggregate: Kind and id of what has changed.
            data: What to say of it; no personal data.
            key: The same for the same doing, so that a rerun tells it once; None: told every time.
        """
        about = {"service": self.service, "aggregate": aggregate[0], "aggregate_id": aggregate[1]}
        _log.info("%s %s", self.service, what, extra=about)
        self._publish(what, [(aggregate, data, key)])

    def announce_each(self, what: str, changes: Sequence[Change]) -> None:
        """`announce` for the several that one call has changed, all at once.

        Args:
            what: As for `announce`.
            changes: What `announce` is given of each: aggregate, data and key.
        """
        about = {"service": self.service, "aggregate": changes[0][0][0], "count": len(changes)}
        _log.info("%s %s", self.service, what, extra=about)
        self._publish(what, changes)

    def _publish(self, what: str, changes: Sequence[Change]) -> None:
        if self._events is None:
            return
        from events.cause import new_event

        kind = f"pivotal.{re.sub('[^a-z0-9_]+', '_', self.service.lower())}.{what}"
        source = f"pivotal/{self.service}"
        events = [new_event(kind, aggregate, data, source=source, dedupe_key=key) for aggregate, data, key in changes]
        try:
            self._events.publish(events)
        except EventLogError as error:
            aggregate, aggregate_id = changes[0][0]
            about = {"service": self.service, "aggregate": aggregate, "aggregate_id": aggregate_id}
            _log.warning("%s: its event %s is not on the log: %s", self.service, kind, error.message, extra=about)

    def _tries(self, operation: Operation, *, probe: bool) -> dict[str, Any]:
        once = probe or not operation.repeatable
        return {"on": self._waits(), "attempts": 1 if once else self._budget.attempts, "timeout": None}

    def _waits(self) -> Callable[[Exception], bool | float]:
        budget, failures = self._budget, count()

        def wait(error: Exception) -> bool | float:
            if not isinstance(error, IntegrationError) or not error.retryable:
                return False
            if error.retry_after is not None:
                return error.retry_after <= budget.longest_wait and error.retry_after
            return random.uniform(0, min(budget.longest_wait, budget.first_wait * 2 ** next(failures)))  # noqa: S311

        return wait

    def _admit(self, operation: Operation) -> bool:
        try:
            return self._breaker is not None and self._breaker.admit()
        except CircuitOpenError as circuit:
            raise self._error(
                f"{self.service}: {operation.name}: not called: the circuit is open, since its last calls failed",
                service=self.service,
                operation=operation.name,
                code=CIRCUIT_OPEN,
                retry_after=circuit.wait,
                hint=f"the service is asked again in {circuit.wait:.0f} s; look at its status page",
                retryable=True,
            ) from None

    @contextmanager
    def _watched(self, operation: Operation, number: int, *, probe: bool) -> Iterator[None]:
        """Times a try, and draws the conclusions from how it ends."""
        start, failure, well = time.perf_counter(), None, None
        try:
            yield
            well = True
        except IntegrationError as error:
            failure, well = str(error.status or error.code or NO_ANSWER), _is_well(error)
            error.retryable = error.retryable and (operation.repeatable or _was_not_done(error))
            raise
        finally:
            seconds = time.perf_counter() - start
            if self._breaker is not None:
                self._breaker.settle(well, probe=probe)
            metrics.tried(self.service, operation.label or operation.name, seconds, again=number > 1, error=failure)
            about = {"service": self.service, "operation": operation.name, "attempt": number, "error": failure}
            _log.debug("%s %s", self.service, operation.name, extra={**about, "seconds": round(seconds, 3)})

    def _circuit(self, state: State) -> None:
        metrics.circuit(self.service, state)
        self._publish(f"circuit.{state}", [(("service", self.service), {"state": state}, None)])


def _is_well(error: IntegrationError) -> bool | None:
    """Whether a service that fails like this is well; None if that cannot be told."""
    if error.status is None:
        return None if error.code == NOT_SENT else False
    if error.status in {408, 429}:
        return None
    return error.status < 500


def _was_not_done(error: IntegrationError) -> bool:
    return error.status == 429 or error.code in {UNREACHABLE, NOT_SENT}


def idempotency_key(operation: str, operation_id: str) -> str:
    """The same key for the same operation of the same caller, over every retry and every rerun.

    Args:
        operation: What is done: `stripe.customers.create`.
        operation_id: The caller's own name of this one doing: `signup-4711`.
    """
    return str(uuid.uuid5(_OPERATIONS, f"{operation}:{operation_id}"))


def hint(status: int | None) -> str | None:
    """What to do about an HTTP status, where the status alone tells."""
    if status is not None and status >= 500:
        return "the service is in trouble; try again later, and look at its status page"
    return _HINTS.get(status or 0)


def without_addresses(text: str) -> str:
    """A service's message without the e-mail addresses that it repeats: messages end up in logs."""
    return re.sub(r"[^\s@'\"<>\[(]+@", "***@", text)


def silence(logger: str) -> None:
    """Turns off what an SDK logs below WARNING: headers with keys, bodies with personal data."""
    logging.getLogger(logger).setLevel(logging.WARNING)


def _log_retry(details: stamina.instrumentation.RetryDetails) -> None:
    error = details.caused_by
    if isinstance(error, IntegrationError):
        _log.warning(
            "%s %s failed (%s); attempt %d in %.1f s",
            error.service,
            error.operation,
            error.status or "no answer",
            details.retry_num + 1,
            details.wait_for,
            extra={"service": error.service, "operation": error.operation, "attempt": details.retry_num},
        )


# stamina's default would print each retry to stdout (structlog comes with Dagster), into the output of `--json`.
stamina.instrumentation.set_on_retry_hooks([_log_retry])
