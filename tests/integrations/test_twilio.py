"""Twilio's client against the sandbox, over a real socket."""

from __future__ import annotations

import json
import logging
import re
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

import sandbox.twilio
from errors import EventLogError
from events.cause import Cause, caused_by, new_event
from events.log import EventLog, open_log
from integrations.calls import RetryBudget, idempotency_key
from integrations.twilio import Sms, Twilio, TwilioConfig, TwilioIntegrationError
from sandbox.serve import Running
from sandbox.sms import NUMBERS
from sandbox.wire import Misbehaviour
from tests.integrations.web import Asked, Reply, Web

ACCOUNT = "AC" + "0" * 32
SERVICE = "MG" + "0" * 32
SECRET = "auth_token_that_is_never_logged"
TRIES = 3
ADA = "+14155550100"
HELLO = Sms(to=ADA, sender=NUMBERS[0], body="Hello Ada")
KEY = idempotency_key("twilio.messages.create", "hello-1")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with closing(open_log(f"sqlite:///{tmp_path / 'events.db'}")) as opened:
        yield opened


@pytest.fixture
def twilio(served: Running) -> Iterator[Twilio]:
    with client(served.twilio_base) as opened:
        yield opened


def client(base: str, log: EventLog | None = None, **changes: Any) -> Twilio:
    usual = {"account_sid": ACCOUNT, "secret": SecretStr(SECRET), "settle": 0.0}
    budget = RetryBudget(attempts=TRIES, first_wait=0.0)
    return Twilio(TwilioConfig(**{**usual, "api_base": base, "retry": budget, **changes}), log)


def goes_wrong(served: Running, *rules: dict[str, Any]) -> None:
    """The next calls go like this, one after the other."""
    for rule in rules:
        served.sandbox.wire.misbehave(Misbehaviour.model_validate({"service": "twilio", **rule}))


def calls(served: Running) -> str:
    """What was called: P for POST, G for GET."""
    return "".join(call.method[0] for call in served.sandbox.wire.calls)


WELL: dict[str, Any] = {"kind": "slow"}
"""A call that goes as it should."""


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


# --- a try whose end nobody knows -------------------------------------------------------------------------------

LOST: dict[str, dict[str, Any]] = {
    "500": {"kind": "error", "status": 500},
    "503": {"kind": "error", "status": 503},
    "408": {"kind": "error", "status": 408},
    "502 in HTML": {"kind": "html", "status": 502},
    "reset": {"kind": "reset"},
    "half an answer": {"kind": "cut"},
}


@pytest.mark.parametrize("how", list(LOST))
def test_a_message_whose_answer_got_lost_is_found_and_not_sent_again(served: Running, twilio: Twilio, how: str) -> None:
    goes_wrong(served, LOST[how] | {"done": True})
    sent = twilio.messages.send(HELLO, operation_id="hello-1")
    assert (sent.known, calls(served)) == ("found", "PG")
    assert [told["sid"] for told in served.sandbox.twilio.messages] == [sent.message.sid]


@pytest.mark.parametrize("how", list(LOST))
def test_a_message_that_twilio_certainly_does_not_have_is_sent_again(served: Running, twilio: Twilio, how: str) -> None:
    goes_wrong(served, LOST[how])
    sent = twilio.messages.send(HELLO, operation_id="hello-1")
    assert (sent.known, calls(served)) == ("answered", "PGGP")
    assert len(served.sandbox.twilio.messages) == 1


def test_a_message_that_is_listed_late_is_found_by_the_second_look(
    served: Running, twilio: Twilio, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_wrong(served, {"kind": "reset", "done": True})
    listed, looks = sandbox.twilio._passes, iter([False])
    monkeypatch.setattr(sandbox.twilio, "_passes", lambda told, asked: next(looks, True) and listed(told, asked))
    assert (twilio.messages.send(HELLO, operation_id="hello-1").known, calls(served)) == ("found", "PGG")
    assert len(served.sandbox.twilio.messages) == 1


def test_a_service_that_is_in_trouble_for_good_uses_up_one_budget(served: Running, twilio: Twilio) -> None:
    goes_wrong(served, *[{"kind": "error", "status": 500}, WELL, WELL] * TRIES)
    with pytest.raises(TwilioIntegrationError) as caught:
        twilio.messages.send(HELLO, operation_id="hello-1")
    assert (calls(served), caught.value.status, caught.value.retryable) == ("PGG" * TRIES, 500, True)


def test_a_message_that_cannot_be_looked_for_is_not_sent_again(served: Running, twilio: Twilio) -> None:
    goes_wrong(served, {"kind": "reset", "done": True}, {"kind": "error", "status": 500, "calls": TRIES})
    with pytest.raises(TwilioIntegrationError, match="looking for it failed, too") as caught:
        twilio.messages.send(HELLO, operation_id="hello-1")
    error = caught.value
    assert (calls(served), error.operation, error.retryable) == ("PGGG", "messages.create", False)
    assert f"operation_key {KEY}" in str(error.hint)


@pytest.mark.parametrize("texts", [("Hello Ada", "Hello Ada"), ("Hi, rewritten by Twilio",)])
def test_what_may_be_the_message_or_not_is_told_and_nothing_is_sent(
    served: Running, twilio: Twilio, texts: tuple[str, ...]
) -> None:
    with client(served.twilio_base) as other:
        sids = [
            other.messages.send(Sms(to=ADA, sender=NUMBERS[0], body=text), operation_id=str(number)).message.sid
            for number, text in enumerate(texts)
        ]
    goes_wrong(served, {"kind": "reset"})
    with pytest.raises(TwilioIntegrationError, match="it may be one of") as caught:
        twilio.messages.send(HELLO, operation_id="hello-1")
    assert all(sid in caught.value.message for sid in sids)
    assert not caught.value.retryable
    assert len(served.sandbox.twilio.messages) == len(texts)


def test_messages_of_other_operations_before_or_elsewhere_are_not_taken_for_it(served: Running, twilio: Twilio) -> None:
    clock = served.sandbox.clock
    with client(served.twilio_base) as other:
        with clock.at(clock.now() - 60):
            other.messages.send(HELLO, operation_id="a minute ago")
        other.messages.send(Sms(to=ADA, sender=NUMBERS[1], body="Hello Ada"), operation_id="from another number")
    twilio.messages.send(HELLO, operation_id="mine, but another one")
    served.sandbox.wire.calls.clear()
    goes_wrong(served, {"kind": "reset"})
    assert twilio.messages.send(HELLO, operation_id="hello-1").known == "answered"
    assert (calls(served), len(served.sandbox.twilio.messages)) == ("PGGP", 4)


# --- many, again, later -----------------------------------------------------------------------------------------


def test_a_rerun_finds_what_it_sent_and_sends_nothing(served: Running, log: EventLog) -> None:
    for known in ("answered", "before"):
        with client(served.twilio_base, log) as twilio:
            assert twilio.messages.send(HELLO, operation_id="hello-1").known == known
    assert len(served.sandbox.twilio.messages) == 1
    assert log.counts() == {"pivotal.twilio.sms.begun": 2, "pivotal.twilio.sms.sent": 1}


def test_a_rerun_finds_what_a_run_has_sent_that_died_before_it_could_tell(
    served: Running, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise SystemExit

    with client(served.twilio_base, log) as twilio, monkeypatch.context() as patched:
        patched.setattr("integrations.twilio.messages.Messages._tell", dies)
        with pytest.raises(SystemExit):
            twilio.messages.send(HELLO, operation_id="hello-1")
    with client(served.twilio_base, log) as twilio:
        assert twilio.messages.send(HELLO, operation_id="hello-1").known == "found"
        assert twilio.messages.send(HELLO, operation_id="hello-1").known == "before"
    assert len(served.sandbox.twilio.messages) == 1


@pytest.mark.parametrize(("done", "known"), [(True, "found"), (False, "answered")])
def test_a_rerun_finds_out_what_its_first_run_could_not(served: Running, log: EventLog, done: bool, known: str) -> None:
    with client(served.twilio_base, log) as twilio:
        goes_wrong(served, {"kind": "reset", "done": done}, {"kind": "error", "status": 500, "calls": TRIES})
        with pytest.raises(TwilioIntegrationError, match="is not known"):
            twilio.messages.send(HELLO, operation_id="hello-1")
        assert twilio.messages.send(HELLO, operation_id="hello-1").known == known
    assert len(served.sandbox.twilio.messages) == 1


def test_a_rerun_that_cannot_tell_sends_nothing(served: Running, log: EventLog) -> None:
    with client(served.twilio_base, log) as twilio, client(served.twilio_base) as other:
        goes_wrong(served, {"kind": "error", "status": 400})
        with pytest.raises(TwilioIntegrationError):
            twilio.messages.send(HELLO, operation_id="hello-1")
        for number in range(2):
            other.messages.send(HELLO, operation_id=str(number))
        with pytest.raises(TwilioIntegrationError, match="an earlier run did not end") as caught:
            twilio.messages.send(HELLO, operation_id="hello-1")
    assert not caught.value.retryable
    assert len(served.sandbox.twilio.messages) == 2


def test_a_message_of_today_is_not_taken_for_one_of_yesterday(served: Running, log: EventLog) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    begun = new_event(
        "pivotal.twilio.sms.begun", ("operation", KEY), {}, source="pivotal/twilio", dedupe_key=f"{KEY}/0",
        timestamp=yesterday,
    )  # fmt: skip
    log.publish([begun])
    with client(served.twilio_base) as other:
        other.messages.send(HELLO, operation_id="of today")
    served.sandbox.wire.calls.clear()
    with client(served.twilio_base, log) as twilio:
        assert twilio.messages.send(HELLO, operation_id="hello-1").known == "answered"
    assert (calls(served), len(served.sandbox.twilio.messages)) == ("GP", 2)


def test_nothing_is_sent_if_the_event_log_cannot_be_told(served: Running, log: EventLog) -> None:
    log.close()
    with client(served.twilio_base, log) as twilio, pytest.raises(EventLogError):
        twilio.messages.send(HELLO, operation_id="hello-1")
    assert calls(served) == ""


def test_an_operation_id_that_was_used_for_another_recipient_is_refused(served: Running, log: EventLog) -> None:
    with client(served.twilio_base, log) as twilio:
        twilio.messages.send(HELLO, operation_id="hello-1")
        with pytest.raises(TwilioIntegrationError, match="was used before") as caught:
            twilio.messages.send(Sms(to="+14155550101", sender=NUMBERS[0], body="x"), operation_id="hello-1")
    assert (caught.value.retryable, len(served.sandbox.twilio.messages)) == (False, 1)


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
