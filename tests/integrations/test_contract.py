"""What holds for every integration: how it fails, how often it tries, what it tells. One function a service.

Each service's client calls the sandbox over a real socket; its calls go wrong in every way there is.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr

from errors import IntegrationError
from integrations.breaker import BreakerPolicy
from integrations.calls import NO_ANSWER, UNREACHABLE, RetryBudget
from integrations.http import AsyncHttpClient, Credential, HttpClient, Limits
from integrations.stripe import Stripe, StripeConfig, StripeIntegrationError
from sandbox.serve import Running
from sandbox.webhooks import Service
from sandbox.wire import Misbehaviour

TRIES = 3
SECRET = "sk_test_this_is_never_logged"
ADDRESS = "ada@example.com"
PATIENCE = 0.2


@dataclass(frozen=True)
class Subject:
    """A client under test.

    Args:
        change: Makes one change, safe to repeat.
        error: The service's own error.
        circuit: Where the client's circuit breaker stands.
        close: Frees what it holds.
        service: The stand-in that it calls.
        repeats: Statuses that this service's client repeats beyond those that all repeat.
    """

    change: Callable[[], object]
    error: type[IntegrationError]
    circuit: Callable[[], str]
    close: Callable[[], None] = lambda: None
    service: Service = "stripe"
    repeats: frozenset[int] = field(default_factory=frozenset)


Opens = Callable[[Running | str, RetryBudget, BreakerPolicy], Subject]


def stripe(at: Running | str, budget: RetryBudget, breaker: BreakerPolicy) -> Subject:
    client = Stripe(
        StripeConfig(
            api_key=SecretStr(SECRET),
            api_base=at if isinstance(at, str) else at.stripe_base,
            read_timeout=PATIENCE,
            retry=budget,
            breaker=breaker,
        )
    )
    return Subject(
        lambda: client.customers.create({"email": ADDRESS}, operation_id="signup-1"),
        StripeIntegrationError,
        lambda: client.circuit,
        # The same idempotency key is still at work.
        repeats=frozenset({409}),
    )


def http(at: Running | str, budget: RetryBudget, breaker: BreakerPolicy) -> Subject:
    client = HttpClient(at if isinstance(at, str) else at.stripe_base, budget=budget, breaker=breaker, **SHOP)
    change = partial(client.post, "/v1/customers", **CREATE)
    return Subject(change, IntegrationError, lambda: client.circuit, client.close)


def http_for_asyncio(at: Running | str, budget: RetryBudget, breaker: BreakerPolicy) -> Subject:
    runner = asyncio.Runner()
    client = AsyncHttpClient(at if isinstance(at, str) else at.stripe_base, budget=budget, breaker=breaker, **SHOP)

    def close() -> None:
        runner.run(client.close())
        runner.close()

    async def create() -> object:
        return await client.post("/v1/customers", **CREATE)

    return Subject(lambda: runner.run(create()), IntegrationError, lambda: client.circuit, close)


SHOP: dict[str, Any] = {"service": "shop", "credential": Credential.bearer(SECRET), "limits": Limits(PATIENCE)}
CREATE: dict[str, Any] = {
    "operation": "customers.create",
    "content": b"email=ada%40example.com",
    "headers": {"Content-Type": "application/x-www-form-urlencoded"},
    "idempotency_key": "signup-1",
}

SERVICES: dict[str, Opens] = {"stripe": stripe, "http": http, "http-for-asyncio": http_for_asyncio}

# how the service fails -> whether a repetition can help, the status, the code if there is no status
FAILURES: dict[str, tuple[dict[str, Any], bool, int | None, str | None]] = {
    **{str(status): ({"status": status}, False, status, None) for status in (400, 401, 402, 403, 404, 409)},
    **{str(status): ({"status": status}, True, status, None) for status in (408, 429, 500, 503)},
    "429 for now": ({"status": 429, "retry_after": "0"}, True, 429, None),
    "429 until a date": ({"status": 429, "retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, True, 429, None),
    "502 in HTML": ({"kind": "html", "status": 502}, True, 502, None),
    "reset": ({"kind": "reset"}, True, None, NO_ANSWER),
    "half an answer": ({"kind": "cut"}, True, None, NO_ANSWER),
    "no answer": ({"kind": "slow", "delay": 60}, True, None, NO_ANSWER),
}
LONGER_THAN_ANYBODY_WAITS = [
    {"status": 429, "retry_after": "3600"},
    {"kind": "html", "status": 503, "retry_after": "3600"},
]
QUICK = RetryBudget(attempts=TRIES, first_wait=0.001, longest_wait=2.0)
PATIENT = BreakerPolicy(failures=100)


@pytest.fixture(params=list(SERVICES))
def opens(request: pytest.FixtureRequest) -> Iterator[Opens]:
    with ExitStack() as open_ones:

        def opens(at: Running | str, budget: RetryBudget, breaker: BreakerPolicy) -> Subject:
            subject = SERVICES[request.param](at, budget, breaker)
            open_ones.callback(subject.close)
            return subject

        yield opens


def fail(served: Running, subject: Subject, how: dict[str, Any], calls: int = 50) -> None:
    rule = {"kind": "error", "service": subject.service, "calls": calls, **how}
    served.sandbox.wire.misbehave(Misbehaviour.model_validate(rule))


@pytest.mark.parametrize("failure", list(FAILURES))
def test_a_failing_call_is_tried_as_often_as_can_help_with_one_key(
    served: Running, opens: Opens, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    how, helps, status, code = FAILURES[failure]
    subject = opens(served, QUICK, PATIENT)
    fail(served, subject, how)
    with pytest.raises(subject.error) as caught:
        subject.change()
    error, keys = caught.value, [call.idempotency_key for call in served.sandbox.wire.calls]
    assert len(keys) == (TRIES if helps or status in subject.repeats else 1)
    assert None not in keys
    assert len(set(keys)) == 1
    assert (error.operation, error.status, error.retryable) == ("customers.create", status, len(keys) > 1)
    assert code in {None, error.code}
    assert error.hint
    assert error.__cause__ is not None or status
    assert "<html>" not in str(error)
    told = "".join(traceback.format_exception(error)) + caplog.text
    assert not [secret for secret in ("never_logged", "ada@", "ada%40") if secret in told]


@pytest.mark.parametrize("how", LONGER_THAN_ANYBODY_WAITS, ids=["429", "503 in HTML"])
def test_a_service_that_asks_for_more_than_the_longest_wait_is_left_alone(
    served: Running, opens: Opens, how: dict[str, Any]
) -> None:
    subject = opens(served, QUICK, PATIENT)
    fail(served, subject, how)
    with pytest.raises(subject.error) as caught:
        subject.change()
    assert (len(served.sandbox.wire.calls), caught.value.retry_after, caught.value.retryable) == (1, 3600, True)


def test_nobody_answers(opens: Opens) -> None:
    subject = opens("http://127.0.0.1:9", QUICK, PATIENT)
    with pytest.raises(subject.error) as caught:
        subject.change()
    assert (caught.value.code, caught.value.status, caught.value.retryable) == (UNREACHABLE, None, True)
    assert "check" in str(caught.value.hint)


@pytest.mark.parametrize("failure", ["500", "502 in HTML", "reset", "half an answer", "429 for now"])
def test_a_call_that_recovers_within_its_budget_works_and_is_done_once(
    served: Running, opens: Opens, failure: str
) -> None:
    subject = opens(served, QUICK, PATIENT)
    fail(served, subject, FAILURES[failure][0] | {"done": True}, TRIES - 1)
    subject.change()
    assert len(served.sandbox.wire.calls) == TRIES
    assert len(served.sandbox.stripe.account.page("customer", {})["data"]) == 1


def test_a_service_in_trouble_is_left_alone_until_a_probe_works(served: Running, opens: Opens) -> None:
    subject = opens(served, QUICK, BreakerPolicy(failures=TRIES + 1, open_for=0.3))
    fail(served, subject, {"status": 500})
    states = []
    for _ in range(3):
        with pytest.raises(subject.error) as caught:
            subject.change()
        states.append(subject.circuit())
    # The second call has its whole budget, though the circuit opens on its way; the third is not made.
    assert states == ["closed", "open", "open"]
    assert len(served.sandbox.wire.calls) == 2 * TRIES
    assert (caught.value.code, caught.value.retryable) == ("circuit_open", True)
    until(lambda: isinstance(attempt(subject), IntegrationError) and len(served.sandbox.wire.calls) > 2 * TRIES)
    assert (len(served.sandbox.wire.calls), subject.circuit()) == (2 * TRIES + 1, "open")  # a probe has one try
    served.sandbox.wire.reset()
    until(lambda: attempt(subject) is None)
    assert subject.circuit() == "closed"


def test_what_a_service_refuses_does_not_open_its_circuit(served: Running, opens: Opens) -> None:
    subject = opens(served, QUICK, BreakerPolicy(failures=2))
    for how in ({"status": 400}, {"status": 403}, {"status": 429}):
        fail(served, subject, how, TRIES)
        for _ in range(TRIES):
            attempt(subject)
    assert subject.circuit() == "closed"


def attempt(subject: Subject) -> IntegrationError | None:
    try:
        subject.change()
    except IntegrationError as error:
        return error
    return None


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
