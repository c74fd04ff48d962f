from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from errors import IntegrationError
from events.cause import Cause, caused_by
from events.envelope import Event
from events.log import EventLog, open_log
from integrations.breaker import BreakerPolicy
from integrations.calls import Calls, Operation, RetryBudget, idempotency_key, silence, without_addresses
from integrations.limits import retry_after, retry_wait, used_up

QUICK = RetryBudget(attempts=4, first_wait=0)


def failing(*, status: int = 429, retryable: bool = True, wait: float | None = None) -> IntegrationError:
    return IntegrationError(
        "no", service="stripe", operation="customers.create", status=status, retryable=retryable, retry_after=wait
    )


def call(work: Callable[[], str], budget: RetryBudget) -> str:
    return Calls("stripe", budget=budget, breaker=None).call(Operation("customers.create"), work)


class Work:
    """Fails as often as it is told, and counts."""

    def __init__(self, failures: int, error: BaseException) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error
        return "done"


def test_a_call_is_tried_until_it_works() -> None:
    work = Work(2, failing())
    assert call(work, RetryBudget(attempts=3, first_wait=0)) == "done"
    assert work.calls == 3


def test_a_call_is_tried_no_more_often_than_the_budget_says_and_the_last_error_is_told() -> None:
    work = Work(9, failing())
    with pytest.raises(IntegrationError, match="no"):
        call(work, RetryBudget(attempts=3, first_wait=0))
    assert work.calls == 3


@pytest.mark.parametrize("error", [failing(retryable=False), ValueError("a mistake of ours")])
def test_what_a_retry_cannot_help_is_tried_once(error: Exception) -> None:
    work = Work(9, error)
    with pytest.raises(type(error)):
        call(work, RetryBudget(first_wait=0))
    assert work.calls == 1


def test_a_service_is_left_alone_for_as_long_as_it_asks(caplog: pytest.LogCaptureFixture) -> None:
    assert call(Work(1, failing(wait=0.2)), RetryBudget(first_wait=0)) == "done"
    assert caplog.messages == ["stripe customers.create failed (429); attempt 2 in 0.2 s"]


def test_a_service_that_asks_for_more_than_the_longest_wait_is_not_waited_for() -> None:
    work = Work(1, failing(wait=3600))
    with pytest.raises(IntegrationError) as error:
        call(work, RetryBudget(longest_wait=20))
    assert (work.calls, error.value.retry_after) == (1, 3600)


def test_waits_are_jittered_over_a_ceiling_that_doubles_up_to_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    ceilings = []

    def uniform(low: float, high: float) -> float:
        ceilings.append((low, high))
        return 0.0

    monkeypatch.setattr("random.uniform", uniform)
    with pytest.raises(IntegrationError):
        call(Work(9, failing()), RetryBudget(attempts=5, first_wait=1, longest_wait=3))
    assert ceilings == [(0, 1), (0, 2), (0, 3), (0, 3), (0, 3)]


def test_a_retry_says_nothing_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    call(Work(1, failing()), RetryBudget(first_wait=0))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first_wait": -1}, {"longest_wait": -0.1}])
def test_a_budget_without_a_try_or_with_a_wait_into_the_past_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least one attempt"):
        RetryBudget(**wrong)


# --- what is told -----------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with closing(open_log(f"sqlite:///{tmp_path / 'events.db'}")) as opened:
        yield opened


def told(log: EventLog) -> list[Event]:
    return [recorded.event for recorded in log.read(0, 100)]


def test_a_change_is_told_once_for_one_key_and_belongs_to_its_cause(
    log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    calls = Calls("stripe", budget=RetryBudget(), breaker=None, events=log)
    with caused_by(Cause("order-7", "event-1", user_id="ada")):
        for _ in range(2):
            calls.announce("customer.created", ("customer", "cus_1"), {"livemode": False}, key="signup-1")
    (event,) = told(log)
    assert (event.type, event.aggregate_type, event.aggregate_id) == (
        "pivotal.stripe.customer.created",
        "customer",
        "cus_1",
    )
    about = event.metadata
    assert (about.source, about.dedupe_key) == ("pivotal/stripe", "signup-1")
    assert (about.correlation_id, about.causation_id, about.user_id) == ("order-7", "event-1", "ada")
    line = caplog.records[0]
    assert (line.getMessage(), line.__dict__["aggregate_id"]) == ("stripe customer.created", "cus_1")


def test_a_change_that_is_made_stands_though_the_event_log_is_out_of_order(
    log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    log.close()
    Calls("stripe", budget=RetryBudget(), breaker=None, events=log).announce("x", ("customer", "c"), {}, key="k")
    assert "its event pivotal.stripe.x is not on the log" in caplog.text


def test_the_circuit_is_an_event_a_metric_and_a_line_of_the_log(
    log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    service = "Circuit-Test"
    calls = Calls(service, budget=QUICK, breaker=BreakerPolicy(failures=2, open_for=0), events=log)
    states = []
    for work in (Work(9, failing(status=500)), Work(0, ValueError())):
        with suppress(IntegrationError):
            calls.call(Operation("orders.list"), work)
        states.append((calls.circuit, sample("pivotal_circuit_state", service=service)))
    assert states == [("open", 2), ("closed", 0)]
    assert [event.type for event in told(log)] == [
        f"pivotal.circuit_test.circuit.{state}" for state in ("open", "half_open", "closed")
    ]
    assert told(log)[0].aggregate_id == service
    assert [text for text in caplog.messages if "circuit" in text] == ["Circuit-Test: circuit open"]


def test_one_probe_at_a_time_is_let_through() -> None:
    calls = Calls("shop", budget=QUICK, breaker=BreakerPolicy(failures=1, open_for=0))
    with pytest.raises(IntegrationError, match="no"):
        calls.call(Operation("orders.list"), Work(9, failing(status=503)))
    refused = []

    def probe() -> str:
        with pytest.raises(IntegrationError, match="the circuit is open") as caught:
            calls.call(Operation("orders.list"), Work(0, ValueError()))
        refused.append(caught.value.code)
        return "done"

    assert calls.call(Operation("orders.list"), probe) == "done"
    assert (refused, calls.circuit) == (["circuit_open"], "closed")


def test_a_probe_that_is_interrupted_leaves_the_way_free_for_another() -> None:
    calls = Calls("shop", budget=QUICK, breaker=BreakerPolicy(failures=1, open_for=0))
    with suppress(IntegrationError):
        calls.call(Operation("orders.list"), Work(9, failing(status=503)))
    with pytest.raises(KeyboardInterrupt):
        calls.call(Operation("orders.list"), Work(9, KeyboardInterrupt()))
    assert calls.circuit == "half_open"
    assert calls.call(Operation("orders.list"), Work(0, ValueError())) == "done"


def test_calls_seconds_errors_and_retries_are_counted_by_service_and_operation() -> None:
    calls = Calls("metered", budget=QUICK, breaker=None)
    operation = Operation("GET /orders/7", label="GET")
    calls.call(operation, Work(2, failing(status=429)))
    of = {"service": "metered", "operation": "GET"}
    assert sample("pivotal_call_seconds_count", **of) == 3
    assert sample("pivotal_call_retries_total", **of) == 2
    assert sample("pivotal_call_errors_total", error="429", **of) == 2


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_a_key_is_the_same_for_the_same_doing_only() -> None:
    key = idempotency_key("stripe.customers.create", "signup-1")
    assert key == idempotency_key("stripe.customers.create", "signup-1")
    assert key != idempotency_key("stripe.customers.create", "signup-2")
    assert key != idempotency_key("stripe.subscriptions.create", "signup-1")


@pytest.mark.parametrize(("header", "seconds"), [(None, None), ("7", 7.0), (" 7 ", 7.0), ("soon", None), ("-1", None)])
def test_retry_after_is_read_in_seconds(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_retry_after_is_read_as_a_date_and_a_past_one_means_now() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert retry_after(format_datetime(soon, usegmt=True)) == pytest.approx(90, abs=5)
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"RateLimit": '"default";r=0;t=30'}, 30),
        ({"RateLimit": '"burst";r=5;t=1, "hour";r=0;t=40'}, 40),
        ({"RateLimit": '"default";r=1;t=30'}, None),
        ({"RateLimit": "nonsense"}, None),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "12"}, 12),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "12"}, 12),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1445412480"}, 0),
        ({"X-RateLimit-Remaining": "7", "X-RateLimit-Reset": "12"}, None),
        ({"X-RateLimit-Remaining": "0"}, None),
        ({"X-RateLimit-Remaining": "none", "X-RateLimit-Reset": "soon"}, None),
    ],
)
def test_a_rate_limit_that_is_used_up_says_until_when(headers: dict[str, str], seconds: float | None) -> None:
    assert used_up(headers) == seconds


def test_a_refusal_without_retry_after_is_waited_for_until_the_rate_limit_is_renewed() -> None:
    soon = str(int(datetime.now(UTC).timestamp()) + 90)
    assert retry_wait({"X-RateLimit-Reset": soon}) == pytest.approx(90, abs=5)
    assert retry_wait({"Retry-After": "7", "X-RateLimit-Reset": soon}) == 7


def test_addresses_are_taken_out_of_messages() -> None:
    message = "Invalid: ada.l@example.com, <bob@x.org> and 'zoë@y.de'"
    assert without_addresses(message) == "Invalid: ***@example.com, <***@x.org> and '***@y.de'"


def test_an_sdk_that_is_silenced_logs_warnings_only(caplog: pytest.LogCaptureFixture) -> None:
    silence("talkative")
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("talkative.client").debug("Authorization: secret")
        logging.getLogger("talkative.client").warning("careful")
    assert caplog.messages == ["careful"]
