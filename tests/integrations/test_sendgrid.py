"""The SendGrid client against the sandbox: the real SDK, over a real socket."""

from __future__ import annotations

import gc
import logging
import time
import traceback
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from integrations.calls import RetryBudget, idempotency_key
from integrations.sendgrid import Message, SendGrid, SendGridConfig, SendGridIntegrationError
from sandbox.serve import Running
from sandbox.wire import Misbehaviour

KEY = "SG.this_is_never_logged"
REFUSED_KEY = "not.SG.this_is_never_logged"
TRIES = 3
WELCOME = Message(
    sender="shop@example.com",
    to=("ada@example.com",),
    subject="Welcome",
    text="Hello",
    html='<a href="https://example.com">Hello</a>',
    categories=("welcome",),
)


@pytest.fixture
def sendgrid(served: Running) -> SendGrid:
    return client(served.sendgrid_base)


def client(base: str, key: str = KEY, timeout: float = 20.0) -> SendGrid:
    budget = RetryBudget(attempts=TRIES, first_wait=0.01, longest_wait=2)
    return SendGrid(SendGridConfig(api_key=SecretStr(key), api_base=base, timeout=timeout, retry=budget))


def tries(served: Running) -> int:
    return len(served.sandbox.wire.calls)


def test_a_mail_to_many_is_one_mail_whose_events_carry_its_id_its_operation_and_its_categories(
    sendgrid: SendGrid, served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(served.sandbox.sendgrid, "_publish", told.extend)
    message = replace(WELCOME, to=("ada@example.com", "bob@example.com"))
    message_id = sendgrid.mail.send(message, operation_id="welcome-1")
    assert {event["email"] for event in told} == {"ada@example.com", "bob@example.com"}
    assert {event["event"] for event in told} == {"processed", "delivered", "open", "click"}
    assert all(event["sg_message_id"].startswith(f"{message_id}.") for event in told)
    assert {event["operation_key"] for event in told} == {idempotency_key("sendgrid.mail.send", "welcome-1")}
    assert all(event["category"] == ["welcome"] for event in told)


def test_a_mail_may_be_text_only(sendgrid: SendGrid) -> None:
    assert sendgrid.mail.send(replace(WELCOME, html=None, categories=()), operation_id="welcome-1")


# how the service fails -> tries on the wire, status, whether a retry can help
FAILURES: list[tuple[dict[str, Any], int, int | None, bool]] = [
    ({"kind": "error", "status": 400}, 1, 400, False),
    ({"kind": "error", "status": 401}, 1, 401, False),
    ({"kind": "error", "status": 403}, 1, 403, False),
    ({"kind": "error", "status": 404}, 1, 404, False),
    ({"kind": "error", "status": 413}, 1, 413, False),
    ({"kind": "error", "status": 429}, TRIES, 429, True),
    ({"kind": "error", "status": 429, "retry_after": "0"}, TRIES, 429, True),
    ({"kind": "error", "status": 429, "retry_after": "3600"}, 1, 429, True),
    ({"kind": "error", "status": 503}, TRIES, 503, True),
    ({"kind": "error", "status": 500}, 1, 500, False),
    ({"kind": "html", "status": 502}, 1, 502, False),
    ({"kind": "reset"}, 1, None, False),
    ({"kind": "slow", "delay": 60}, 1, None, False),
]


@pytest.mark.parametrize(("failure", "count", "status", "retryable"), FAILURES)
def test_a_mail_is_sent_again_only_if_it_certainly_was_not_taken(
    served: Running, failure: dict[str, Any], count: int, status: int | None, retryable: bool
) -> None:
    sendgrid = client(served.sendgrid_base, timeout=0.3 if failure["kind"] == "slow" else 20.0)
    served.sandbox.wire.misbehave(Misbehaviour(service="sendgrid", calls=TRIES + 5, **failure))
    with pytest.raises(SendGridIntegrationError) as caught:
        sendgrid.mail.send(WELCOME, operation_id="welcome-1")
    error = caught.value
    assert tries(served) == count
    assert (error.service, error.operation, error.status) == ("sendgrid", "mail.send", status)
    assert error.retryable == retryable
    assert "<html>" not in str(error)
    assert error.__cause__ is not None
    unsure = status in {None, 500, 502}
    assert (f"operation_key {idempotency_key('sendgrid.mail.send', 'welcome-1')}" in str(error)) == unsure


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the SDK leaves half an answer open
def test_a_mail_whose_answer_is_cut_short_is_not_sent_again(served: Running, sendgrid: SendGrid) -> None:
    served.sandbox.wire.misbehave(Misbehaviour(service="sendgrid", kind="cut", calls=TRIES))
    with pytest.raises(SendGridIntegrationError, match="may be on its way"):
        sendgrid.mail.send(WELCOME, operation_id="welcome-1")
    gc.collect()
    assert tries(served) == 1


def test_nobody_answers() -> None:
    with pytest.raises(SendGridIntegrationError, match=r"no answer \(ConnectionRefusedError\)") as error:
        client("http://127.0.0.1:9").mail.send(WELCOME, operation_id="welcome-1")
    assert error.value.retryable
    assert "PIVOTAL_SENDGRID_API_BASE" in str(error.value)


def test_a_mail_gets_through_after_the_service_was_busy(served: Running, sendgrid: SendGrid) -> None:
    served.sandbox.wire.misbehave(Misbehaviour(service="sendgrid", kind="error", status=429, calls=TRIES - 1))
    assert sendgrid.mail.send(WELCOME, operation_id="welcome-1")
    assert tries(served) == TRIES


def test_sendgrids_own_header_of_its_rate_limit_is_heeded(
    served: Running, sendgrid: SendGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.responses import JSONResponse

    reset = {"X-RateLimit-Reset": str(int(time.time()) + 3600)}
    limited = JSONResponse({"errors": [{"message": "too many requests"}]}, 429, reset)
    monkeypatch.setattr("sandbox.sendgrid._refused", lambda *_: limited)
    with pytest.raises(SendGridIntegrationError) as error:
        sendgrid.mail.send(replace(WELCOME, subject=""), operation_id="welcome-1")
    assert tries(served) == 1
    assert error.value.retry_after == pytest.approx(3600, abs=10)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"to": ("ada",)}, r"400 Does not contain a valid address. \(personalizations.0.to.0.email\)"),
        ({"text": None, "html": None}, "the content parameter is required"),
        ({"sender": "unverified@example.com"}, "403 The from address does not match a verified Sender Identity"),
        ({"categories": ("a", "a")}, "must contain unique items"),
    ],
)
def test_a_refusal_says_what_is_wrong(sendgrid: SendGrid, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SendGridIntegrationError, match=message):
        sendgrid.mail.send(replace(WELCOME, **wrong), operation_id="welcome-1")


def test_no_key_and_no_address_reaches_a_log_an_error_or_a_repr(
    served: Running, sendgrid: SendGrid, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    twice = replace(WELCOME, to=("ada@example.com", "ada@example.com"))
    with caplog.at_level(logging.DEBUG):
        sendgrid.mail.send(WELCOME, operation_id="welcome-1")
        served.sandbox.wire.misbehave(Misbehaviour(service="sendgrid", kind="error", status=429))
        with pytest.raises(SendGridIntegrationError, match="first duplicate instance") as error:
            sendgrid.mail.send(twice, operation_id="welcome-2")
        with pytest.raises(SendGridIntegrationError) as refused:
            client(served.sendgrid_base, REFUSED_KEY).mail.send(WELCOME, operation_id="welcome-3")
    told = "\n".join(caplog.messages) + "".join(capfd.readouterr())
    assert "attempt 2" in told
    assert "never_logged" not in told + repr(sendgrid.__dict__) + "".join(traceback.format_exception(refused.value))
    assert "ada@" not in told + str(error.value)


def test_the_service_keeps_what_it_does_not_deliver_to(served: Running, sendgrid: SendGrid) -> None:
    sendgrid.mail.send(replace(WELCOME, to=("bounce@example.com",)), operation_id="welcome-1")
    answer = httpx.get(f"{served.sendgrid_base}/v3/suppression/bounces", headers={"Authorization": f"Bearer {KEY}"})
    assert [bounce["email"] for bounce in answer.json()] == ["bounce@example.com"]
