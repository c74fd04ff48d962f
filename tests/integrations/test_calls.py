from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from errors import IntegrationError
from integrations.calls import (
    RetryBudget,
    call,
    idempotency_key,
    retry_after,
    retry_wait,
    silence,
    used_up,
    without_addresses,
)


def failing(*, retryable: bool = True, wait: float | None = None) -> IntegrationError:
    return IntegrationError(
        "no", service="stripe", operation="customers.create", status=429, retryable=retryable, retry_after=wait
    )


class Work:
    """Fails as often as it is told, and counts."""

    def __init__(self, failures: int, error: Exception) -> None:
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
