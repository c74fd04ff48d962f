"""Sending one mail through SendGrid's client against the sandbox: the real SDK, over a real socket."""

from __future__ import annotations

import base64
import gc
import json
import logging
import time
import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integrations.calls import idempotency_key
from integrations.sendgrid import Attachment, Message, SendGrid, SendGridIntegrationError
from sandbox.serve import Running
from sandbox.wire import Misbehaviour
from tests.integrations.mailing import REFUSED_KEY, TRIES, WELCOME, client, sendgrid, told, tries
from tests.integrations.web import Reply, Web

__all__ = ["sendgrid", "told"]


def test_a_mail_to_many_is_one_mail_whose_events_carry_its_id_its_operation_and_its_categories(
    sendgrid: SendGrid, told: list[dict[str, Any]]
) -> None:
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


def test_sendgrids_own_header_of_its_rate_limit_is_heeded(web: Web) -> None:
    reset = {"X-RateLimit-Reset": str(int(time.time()) + 3600)}
    web.replies([Reply({"errors": [{"message": "too many requests"}]}, 429, reset)])
    with pytest.raises(SendGridIntegrationError) as error:
        client(web.url).mail.send(WELCOME, operation_id="welcome-1")
    assert len(web.asked) == 1
    assert error.value.retry_after == pytest.approx(3600, abs=10)


def test_all_that_can_be_said_of_a_mail_is_said_as_sendgrid_wants_it(web: Web) -> None:
    web.replies([Reply(b"", 202, {"X-Message-Id": "m1"})])
    at = datetime(2026, 11, 24, 12, tzinfo=UTC)
    message = Message(
        sender="The Shop <shop@example.com>",
        to=("Ada Lovelace <ada@example.com>", "bob@example.com"),
        cc=("cc@example.com",),
        bcc=("bcc@example.com",),
        reply_to="Help <help@example.com>",
        subject="Invoice",
        template_id="d-1",
        template_data={"name": "Ada", "items": [{"price": 12.5}]},
        attachments=(Attachment("invoice.pdf", b"%PDF"), Attachment("logo", b"x", "image/png", content_id="logo")),
        send_at=at,
        track_opens=False,
        track_clicks=True,
        unsubscribe_group=7,
    )
    assert client(web.url).mail.send(message, operation_id="invoice-1") == "m1"
    pdf = {"content": base64.b64encode(b"%PDF").decode(), "filename": "invoice.pdf", "type": "application/pdf"}
    logo = {"content": "eA==", "filename": "logo", "type": "image/png", "disposition": "inline", "content_id": "logo"}
    assert json.loads(web.asked[0].body) == {
        "personalizations": [
            {
                "to": [{"email": "ada@example.com", "name": "Ada Lovelace"}, {"email": "bob@example.com"}],
                "cc": [{"email": "cc@example.com"}],
                "bcc": [{"email": "bcc@example.com"}],
                "subject": "Invoice",
                "dynamic_template_data": {"name": "Ada", "items": [{"price": 12.5}]},
                "send_at": int(at.timestamp()),
                "custom_args": {"operation_key": idempotency_key("sendgrid.mail.send", "invoice-1")},
            }
        ],
        "from": {"email": "shop@example.com", "name": "The Shop"},
        "reply_to": {"email": "help@example.com", "name": "Help"},
        "template_id": "d-1",
        "attachments": [pdf, logo],
        "tracking_settings": {"open_tracking": {"enable": False}, "click_tracking": {"enable": True}},
        "asm": {"group_id": 7},
    }


def test_a_mail_with_everything_is_taken(sendgrid: SendGrid, told: list[dict[str, Any]]) -> None:
    template = sendgrid.templates.create("welcome")["id"]
    sendgrid.templates.versions.create(template, {"name": "v1", "subject": "Hi", "html_content": "Hello {{name}}"})
    message = Message(
        "The Shop <shop@example.com>",
        ("Ada <ada@example.com>",),
        cc=("bob@example.com",),
        reply_to="help@example.com",
        template_id=template,
        template_data={"name": "Ada"},
        attachments=(Attachment("invoice.pdf", b"%PDF"),),
        categories=("welcome",),
        track_opens=False,
    )
    assert sendgrid.mail.send(message, operation_id="welcome-1")
    assert sorted((event["email"], event["event"]) for event in told) == [
        (f"{name}@example.com", event) for name in ("ada", "bob") for event in ("delivered", "processed")
    ]


def test_a_mail_is_sent_when_it_is_due(served: Running, sendgrid: SendGrid, told: list[dict[str, Any]]) -> None:
    now = served.sandbox.clock.now()
    tomorrow = datetime.fromtimestamp(now, UTC) + timedelta(days=1)
    assert sendgrid.mail.send(replace(WELCOME, send_at=tomorrow), operation_id="welcome-1")
    assert told == []
    with served.sandbox.clock.at(now + 86_400):
        sendgrid.mail.send(replace(WELCOME, to=("bob@example.com",)), operation_id="welcome-2")
    assert {event["email"] for event in told} == {"ada@example.com", "bob@example.com"}


def test_an_address_of_the_api_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"api_base: 'api.sendgrid.com' does not begin with https://"):
        client("api.sendgrid.com")


def test_a_time_without_a_zone_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="send_at has no time zone"):
        replace(WELCOME, send_at=datetime(2026, 11, 24))  # noqa: DTZ001


def test_more_than_a_thousand_addresses_are_refused_before_anything_is_sent(
    served: Running, sendgrid: SendGrid
) -> None:
    crowd = replace(WELCOME, to=tuple(f"{number}@example.com" for number in range(1001)))
    with pytest.raises(SendGridIntegrationError, match=r"1001 addresses.*\n.*send_many"):
        sendgrid.mail.send(crowd, operation_id="welcome-1")
    assert tries(served) == 0


def test_an_answer_without_a_message_id_is_none(web: Web) -> None:
    web.replies([Reply({"hello": "I am a proxy"}, 200)])
    with pytest.raises(SendGridIntegrationError, match="may be on its way") as error:
        client(web.url).mail.send(WELCOME, operation_id="welcome-1")
    assert not error.value.retryable


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"to": ("ada",)}, r"400 Does not contain a valid address. \(personalizations.0.to.0.email\)"),
        ({"text": None, "html": None}, "the content parameter is required"),
        ({"sender": "unverified@example.com"}, "403 The from address does not match a verified Sender Identity"),
        ({"categories": ("a", "a")}, "must contain unique items"),
        ({"template_id": "welcome"}, r"must be a valid GUID, you provided 'welcome'. \(template_id\)"),
        ({"unsubscribe_group": 7}, "must be a valid Group ID on your account"),
        ({"send_at": datetime(2100, 1, 1, tzinfo=UTC)}, "72 hours in advance is forbidden"),
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
    assert "ada@" not in repr(WELCOME)
    assert "never_logged" not in told + repr(sendgrid.__dict__) + "".join(traceback.format_exception(refused.value))
    assert "ada@" not in told + str(error.value)


def test_the_service_keeps_what_it_does_not_deliver_to(sendgrid: SendGrid) -> None:
    sendgrid.mail.send(replace(WELCOME, to=("bounce@example.com",)), operation_id="welcome-1")
    assert [bounce["email"] for bounce in sendgrid.suppressions.list("bounces")] == ["bounce@example.com"]
