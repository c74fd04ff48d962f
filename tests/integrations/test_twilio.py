"""Twilio's client against the sandbox, over a real socket."""

from __future__ import annotations

import json
import logging
import re
import threading
import traceback
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from events.cause import Cause, caused_by
from events.log import EventLog
from integrations.calls import idempotency_key
from integrations.twilio import Sms, Twilio, TwilioIntegrationError
from sandbox.serve import Running
from sandbox.sms import NUMBERS
from tests.integrations.texting import (
    ACCOUNT,
    ADA,
    HELLO,
    KEY,
    SECRET,
    SERVICE,
    calls,
    client,
    goes_wrong,
    log,
    twilio,
)
from tests.integrations.web import Asked, Reply, Web

__all__ = ["log", "twilio"]


# --- sending ----------------------------------------------------------------------------------------------------


def test_a_message_is_sent_from_a_number_and_told_without_anybodys_number(served: Running, log: EventLog) -> None:
    with client(served.twilio_base, log) as twilio, caused_by(Cause("order-7")):
        sent = twilio.messages.send(HELLO, operation_id="hello-1")
    message = sent.message
    assert (sent.known, message.status, message.to, message.sender, message.body) == (
        "answered",
        "queued",
        ADA,
        NUMBERS[0],
        "Hello Ada",
    )
    begun, event = (recorded.event for recorded in log.read(0, 10))
    assert (begun.type, begun.aggregate_id, begun.data) == ("pivotal.twilio.sms.begun", KEY, {})
    assert (event.type, event.aggregate_id, event.metadata.correlation_id) == (
        "pivotal.twilio.sms.sent",
        message.sid,
        "order-7",
    )
    assert event.data["operation_key"] == event.metadata.dedupe_key == KEY
    shown = begun.model_dump_json() + event.model_dump_json() + repr(sent)
    assert not [secret for secret in (ADA, NUMBERS[0], "Ada") if secret in shown]


def test_media_a_service_a_schedule_a_validity_and_a_callback_reach_twilio(served: Running) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    mms = Sms(to=ADA, service=SERVICE, media=("https://example.com/a.png",), send_at=soon, validity=60)
    with client(served.twilio_base, status_callback="http://127.0.0.1:9/status?shop=1") as twilio:
        message = twilio.messages.send(mms, operation_id="mms-1").message
    assert (message.sid[:2], message.status, message.media, message.sender) == ("MM", "scheduled", 1, None)
    kept = served.sandbox.twilio._kept[message.sid]
    key = idempotency_key("twilio.messages.create", "mms-1")
    assert kept.callback == f"http://127.0.0.1:9/status?shop=1&operation_key={key}"
    assert kept.send_at == int(soon.timestamp())


def test_a_schedule_that_twilio_would_forget_or_misread_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Sms(to=ADA, service=SERVICE, send_at=datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match="Twilio sends at once"):
        Sms(to=ADA, sender=NUMBERS[0], send_at=datetime(2030, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("changes", "code", "hint"),
    [
        ({"to": "(415) 555-0100"}, "21211", "E.164"),
        ({"to": "+15005550004"}, "21610", "START"),
        ({"to": "+15005550003"}, "21408", "Geo permissions"),
        ({"sender": "+14155550199"}, "21606", "number of this account"),
        ({"body": "x" * 1601}, "21617", "1,600"),
    ],
)
def test_a_refusal_has_twilios_code_what_to_do_and_nobodys_number(
    served: Running, twilio: Twilio, changes: dict[str, Any], code: str, hint: str
) -> None:
    sms = Sms(**{"to": ADA, "sender": NUMBERS[0], "body": "Hello", **changes})
    with pytest.raises(TwilioIntegrationError) as caught:
        twilio.messages.send(sms, operation_id="hello-1")
    error = caught.value
    assert (error.status, error.code, error.retryable, calls(served)) == (400, code, False, "P")
    assert hint in str(error)
    assert not re.search(r"5550\d{3}|555-0100", "".join(traceback.format_exception(error)))


# --- many -----------------------------------------------------------------------------------------------------------


def test_many_are_sent_each_with_its_result(served: Running, log: EventLog) -> None:
    wrong = Sms(to="+1", sender=NUMBERS[0], body="Hello")
    many = [Sms(to=f"+1415555{number:04}", sender=NUMBERS[0], body="Hello") for number in range(20)]
    many[7:7] = [wrong]
    with client(served.twilio_base, log) as twilio, caused_by(Cause("campaign")):
        done = twilio.messages.send_many(many, operation_id="spring")
        again = twilio.messages.send_many(many, operation_id="spring")
    assert (done.total, done.successful, done.failed) == (21, 20, 1)
    assert [result.index for result in done.results] == list(range(21))
    assert [result.sent.message.to if result.sent else None for result in done.results] == [
        None if sms is wrong else sms.to for sms in many
    ]
    assert done.results[7].error is not None
    assert done.results[7].error.code == "21211"
    assert (again.successful, len(served.sandbox.twilio.messages)) == (20, 20)
    assert {recorded.event.metadata.correlation_id for recorded in log.read(0, 100)} == {"campaign"}


def test_many_are_sent_no_more_at_once_than_asked_for(web: Web) -> None:
    together, under_way, most = threading.Barrier(4, timeout=60), [0], [0]
    lock = threading.Lock()

    def answer(_: Asked) -> Reply:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        together.wait()
        with lock:
            under_way[0] -= 1
        return Reply({"code": 21211, "message": "no", "status": 400}, status=400)

    web.answer = answer
    with client(web.url) as twilio:
        assert twilio.messages.send_many([HELLO] * 12, operation_id="x", at_once=4).failed == 12
    assert (most[0], len(web.asked)) == (4, 12)


# --- finding, listing, canceling --------------------------------------------------------------------------------


def test_a_message_is_got_with_what_became_of_it(twilio: Twilio) -> None:
    sid = twilio.messages.send(Sms(to="+15005550020", sender=NUMBERS[0], body="x"), operation_id="1").message.sid
    message = twilio.messages.get(sid)
    assert (message.status, message.error_code, message.price, message.price_unit) == (
        "undelivered",
        30003,
        Decimal("-0.00790"),
        "USD",
    )
    assert message.sent_at is not None
    with pytest.raises(TwilioIntegrationError) as caught:
        twilio.messages.get("SM" + "0" * 32)
    error = caught.value
    assert (error.status, error.code, str(error.request_id)[:2]) == (404, "20404", "RQ")


def test_a_list_has_every_page_and_only_what_is_asked_for(
    served: Running, twilio: Twilio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("integrations.twilio.reading.PAGE", "2")
    clock, now = served.sandbox.clock, datetime.now(UTC)
    for hours in range(5):
        with clock.at(int((now - timedelta(hours=hours)).timestamp())):
            twilio.messages.send(HELLO, operation_id=str(hours))
    twilio.messages.send(Sms(to="+14155550101", sender=NUMBERS[1], body="x"), operation_id="other")
    served.sandbox.wire.calls.clear()
    assert len({message.sid for message in twilio.messages.list()}) == 6
    assert calls(served) == "GGG"
    assert len(list(twilio.messages.list(to=ADA))) == 5
    assert len(list(twilio.messages.list(sender=NUMBERS[1]))) == 1
    window: dict[str, Any] = {"sent_after": now - timedelta(hours=3.5), "sent_before": now - timedelta(hours=0.5)}
    assert len(list(twilio.messages.list(**window))) == 3


def test_a_scheduled_message_goes_out_when_it_is_time(served: Running, twilio: Twilio) -> None:
    sid = twilio.messages.send(scheduled(), operation_id="later-1").message.sid
    advance(served, 3000)
    assert twilio.messages.get(sid).status == "scheduled"
    advance(served, 1000)
    assert twilio.messages.get(sid).status == "delivered"


def test_a_scheduled_message_is_canceled_once_and_told_once(served: Running, log: EventLog) -> None:
    with client(served.twilio_base, log) as twilio:
        sid = twilio.messages.send(scheduled(), operation_id="later-1").message.sid
        served.sandbox.wire.calls.clear()
        goes_wrong(served, {"kind": "reset", "done": True})
        assert twilio.messages.cancel(sid).status == "canceled"  # its answer got lost, and the next try is refused
        assert calls(served) == "PPG"
        assert twilio.messages.cancel(sid).status == "canceled"
    advance(served, 5000)
    assert [told["status"] for told in served.sandbox.twilio.messages] == ["canceled"]
    assert [recorded.event.type for recorded in log.read(1, 10)] == [
        "pivotal.twilio.sms.sent",
        "pivotal.twilio.sms.canceled",
    ]


def test_what_is_sent_cannot_be_canceled(twilio: Twilio) -> None:
    sid = twilio.messages.send(HELLO, operation_id="hello-1").message.sid
    with pytest.raises(TwilioIntegrationError, match="status is `scheduled`") as caught:
        twilio.messages.cancel(sid)
    assert caught.value.code == "30409"


def scheduled() -> Sms:
    return Sms(to=ADA, service=SERVICE, body="Later", send_at=datetime.now(UTC) + timedelta(hours=1))


def advance(served: Running, seconds: int) -> None:
    httpx.post(f"{served.url}/_sandbox/clock", json={"seconds": seconds}).raise_for_status()


# --- what is not Twilio's, and what must not show ---------------------------------------------------------------


def test_an_answer_that_is_not_twilios_is_told_and_a_message_behind_it_looked_for(web: Web) -> None:
    web.replies([Reply(b"<html>Welcome to the hotel</html>", status=200)])
    with client(web.url) as twilio:
        with pytest.raises(TwilioIntegrationError, match="something that is not Twilio's"):
            twilio.messages.get("SM1")
        with pytest.raises(TwilioIntegrationError, match="looking for it failed, too") as caught:
            twilio.messages.send(HELLO, operation_id="hello-1")
    assert [asked.method for asked in web.asked] == ["GET", "POST", "GET"]
    assert not caught.value.retryable


def test_an_api_key_is_used_in_the_place_of_the_auth_token(web: Web) -> None:
    web.replies([Reply({"code": 20003, "message": "Authenticate", "status": 401}, status=401)])
    with client(web.url, api_key="SK" + "1" * 32) as twilio, pytest.raises(TwilioIntegrationError) as caught:
        twilio.messages.get("SM1")
    assert web.asked[0].path == f"/2010-04-01/Accounts/{ACCOUNT}/Messages/SM1.json"
    assert httpx.BasicAuth("SK" + "1" * 32, SECRET)._auth_header == web.asked[0].headers["authorization"]
    assert "PIVOTAL_TWILIO_ACCOUNT_SID" in str(caught.value.hint)


def test_no_secret_no_number_and_no_text_reaches_a_log_an_error_or_a_repr(
    served: Running, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), client(served.twilio_base) as twilio:
        goes_wrong(served, {"kind": "reset"}, {"kind": "error", "status": 429})
        sent = twilio.messages.send(HELLO, operation_id="hello-1")
        goes_wrong(served, {"kind": "error", "status": 403, "calls": 2})
        with pytest.raises(TwilioIntegrationError) as listed:
            list(twilio.messages.list(to=ADA))
        with pytest.raises(TwilioIntegrationError) as refused:
            twilio.messages.send(HELLO, operation_id="hello-2")
    errors = "".join("".join(traceback.format_exception(caught.value)) for caught in (listed, refused))
    told = "\n".join(f"{record.getMessage()} {json.dumps(vars(record), default=str)}" for record in caplog.records)
    shown = f"{told} {errors} {sent!r} {HELLO!r} {twilio.__dict__!r} {capfd.readouterr()}"
    assert not [secret for secret in ("never_logged", "4155550100", "5005550006", "Hello Ada") if secret in shown]
