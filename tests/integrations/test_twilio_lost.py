"""Messages of whose sending nobody knows the end: an answer got lost, or a run did."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import sandbox.twilio
from errors import EventLogError
from events.cause import new_event
from events.log import EventLog
from integrations.twilio import Sms, Twilio, TwilioIntegrationError
from sandbox.serve import Running
from sandbox.sms import NUMBERS
from tests.integrations.texting import (
    ADA,
    HELLO,
    KEY,
    TRIES,
    WELL,
    calls,
    client,
    goes_wrong,
    log,
    twilio,
)

__all__ = ["log", "twilio"]


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


# --- reruns ---------------------------------------------------------------------------------------------------------


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
