from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.envelope import Event
from projections import project
from projections.tables import ProjectionError, Row
from projections.twilio import CANCELED, SENT
from tests.projections.samples import NOON, event, twilio_event, twilio_inbound

LIFE = ["accepted", "queued", "sending", "sent", "delivered", "read"]


def sent(status: str = "accepted", at: int = NOON - 1) -> Event:
    """Our own event, as `integrations.twilio` announces it."""
    told = {"message_sid": "SM1", "status": status, "service": "MG1", "operation_key": "k1", "known": "answered"}
    return event(SENT, "k1", at, told)


def rows(told: Event) -> dict[str, dict[str, Any]]:
    return {row.table: row.record() for row in project(told)}


def newest(events: list[Event]) -> Row:
    """What the table holds after these events."""
    return max((row for told in events for row in project(told)), key=lambda row: row.version)


def test_a_message_is_one_row_from_sending_on() -> None:
    (before,) = project(sent())
    (after,) = project(twilio_event("sent", "SM1/sent", operation_key="k1", MessagingServiceSid="MG1"))
    assert (before.table, before.key) == (after.table, after.key) == ("sms_messages", ("message_sid",))
    first, second = before.record(), after.record()
    same = ("message_sid", "operation_key", "messaging_service_sid", "direction")
    assert [first[name] for name in same] == [second[name] for name in same] == ["SM1", "k1", "MG1", "outbound"]
    assert (first["status"], first["to_number"], second["status"], second["to_number"]) == (
        "accepted", None, "sent", "+14155550100",
    )  # fmt: skip
    assert str(first["version"]) < str(second["version"])


def test_a_status_only_moves_forward_whatever_the_clock_says() -> None:
    found = [rows(twilio_event(status, status, NOON - number)) for number, status in enumerate(LIFE)]
    versions = [str(one["sms_messages"]["version"]) for one in found]
    assert all(earlier < later for earlier, later in pairwise(versions))


@pytest.mark.parametrize("end", ["undelivered", "failed", "canceled"])
def test_an_end_stands_above_the_way_to_it(end: str) -> None:
    assert newest([twilio_event(end, "1", NOON - 9), *[twilio_event(each, each) for each in LIFE[:4]]]).record()[
        "status"
    ] == end  # fmt: skip


def test_of_one_status_what_twilio_tells_stands_above_what_we_do() -> None:
    assert newest([sent("queued", NOON + 9), twilio_event("queued", "1")]).record()["to_number"] == "+14155550100"


def test_a_status_that_nobody_has_heard_of_does_not_undo_an_end() -> None:
    told = [twilio_event("sent", "1"), twilio_event("teleporting", "2"), twilio_event("delivered", "3")]
    assert newest(told[:2]).record()["status"] == "teleporting"
    assert newest(told).record()["status"] == "delivered"


def test_a_reason_is_kept_as_a_number() -> None:
    assert rows(twilio_event("undelivered", "1", ErrorCode="30003"))["sms_messages"]["error_code"] == 30003


def test_a_canceled_message_needs_no_word_of_twilios() -> None:
    canceled = event(CANCELED, "canceled/SM1", NOON, {"message_sid": "SM1"})
    assert newest([canceled, sent("scheduled")]).record()["status"] == "canceled"


def test_an_inbound_message_has_its_text() -> None:
    told = rows(twilio_inbound("Is it open?", "SM2"))
    assert told.keys() == {"sms_messages"}
    assert [told["sms_messages"][name] for name in ("direction", "status", "body", "from_number")] == [
        "inbound", "received", "Is it open?", "+14155550100",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "data", "active"),
    [
        (" Stop ", {}, True),
        ("unsubscribe", {}, True),
        ("Start", {}, False),
        ("Arrêt", {"OptOutType": "STOP"}, True),
        ("Oui", {"OptOutType": "START"}, False),
    ],
)
def test_who_answers_stop_is_suppressed_until_start(body: str, data: dict[str, Any], active: bool) -> None:
    told = rows(twilio_inbound(body, "SM2", **data))["sms_suppressions"]
    assert (told["number"], told["sender"], told["active"]) == ("+14155550100", "+15005550006", active)


@pytest.mark.parametrize(("body", "data"), [("Stop it!", {}), ("HELP", {"OptOutType": "HELP"}), (None, {})])
def test_who_says_something_else_is_not_suppressed(body: Any, data: dict[str, Any]) -> None:
    assert rows(twilio_inbound(body, "SM2", **data)).keys() == {"sms_messages"}


def test_a_service_is_suppressed_whichever_of_its_numbers_was_answered() -> None:
    assert rows(twilio_inbound("STOP", "SM2", MessagingServiceSid="MG1"))["sms_suppressions"]["sender"] == "MG1"


def test_within_a_second_not_to_write_wins() -> None:
    told = [rows(twilio_inbound(word, word))["sms_suppressions"] for word in ("STOP", "START")]
    assert told[0]["version"] > told[1]["version"]


@pytest.mark.parametrize(
    "told",
    [
        event(SENT, "k1", NOON, {"status": "queued"}),
        event(SENT, "k1", NOON, {"message_sid": "SM1"}),
        event("twilio.message.sent", "1", NOON, {"MessageStatus": "sent"}),
        twilio_event("failed", "1", ErrorCode="no number"),
        twilio_event("sent", "1", To="+1\x00"),
    ],
)
def test_what_does_not_fit_is_refused_without_its_values(told: Event) -> None:
    with pytest.raises(ProjectionError, match="does not fit sms_messages") as caught:
        project(told)
    assert "no number" not in str(caught.value)


def test_an_event_of_other_things_has_no_row() -> None:
    assert project(event("twilio.call.completed", "1", NOON, {})) == []
    assert project(event("pivotal.twilio.circuit.open", "1", NOON, {})) == []


STATUSES = st.sampled_from([*LIFE, "scheduled", "undelivered", "failed", "canceled", "teleporting"])
CALLBACKS = st.lists(st.tuples(STATUSES, st.integers(NOON, NOON + 5)), min_size=1, max_size=6)


@given(CALLBACKS, st.data())
def test_callbacks_twice_and_in_any_order_end_in_the_same_row(told: list[tuple[str, int]], data: st.DataObject) -> None:
    events = [sent(), *(twilio_event(status, f"SM1/{number}", at) for number, (status, at) in enumerate(told))]
    arrivals = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events), max_size=5))))
    furthest = max((LIFE.index(status) for status, _ in told if status in LIFE), default=-1)

    row = newest(arrivals)

    assert row == newest(events)
    if {status for status, _ in told} <= set(LIFE):
        assert row.record()["status"] == LIFE[max(furthest, 0)]
