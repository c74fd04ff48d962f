from __future__ import annotations

from typing import Any

import pytest

from events.envelope import Event
from integrations.mail_names import recipient_of
from projections import project
from projections.sendgrid import SENT
from projections.tables import ProjectionError
from tests.projections.samples import NOON, event, sendgrid_event


def rows(event: Event) -> dict[str, dict[str, Any]]:
    return {row.table: row.record() for row in project(event)}


def test_a_message_is_known_by_the_id_that_sending_returned() -> None:
    told = rows(sendgrid_event("delivered", "e1"))["email_messages"]
    assert (told["message_id"], told["email"]) == ("14c5d75ce93.dfd.64b469", "ann@example.com")


def sent(*addresses: str) -> Event:
    id_ = "14c5d75ce93.dfd.64b469"
    recipients = [recipient_of(id_, address) for address in addresses]
    return event(SENT, "k1", NOON - 1, {"message_id": id_, "operation_key": "k1", "recipients": recipients})


def test_a_mail_is_one_row_from_sending_on() -> None:
    (first,) = project(sent("ann@example.com"))
    before, after = first.record(), rows(sendgrid_event("processed", "e1", operation_key="k1"))["email_messages"]
    assert {name: before[name] for name in first.key} == {name: after[name] for name in first.key}
    assert (before["status"], before["email"], before["operation_key"]) == ("sent", None, "k1")
    assert (after["status"], after["email"], after["operation_key"]) == ("processed", "ann@example.com", "k1")
    assert str(before["version"]) < str(after["version"])


def test_a_mail_has_a_row_for_each_recipient() -> None:
    told = project(sent("ann@example.com", "bob@example.com"))
    assert len({row.record()["recipient"] for row in told}) == 2


@pytest.mark.parametrize(
    "data",
    [
        {"message_id": "m1"},
        {"message_id": "m1", "recipients": [7]},
        {"recipients": ["r1"]},
    ],
)
def test_what_is_not_told_as_a_sent_mail_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ProjectionError, match="does not fit email_messages"):
        project(event(SENT, "m1", NOON, data))


def test_a_delivery_without_an_address_is_refused() -> None:
    nobody = sendgrid_event("delivered", "e1")
    del nobody.data["email"]
    with pytest.raises(ProjectionError, match=r"data\.email: Field required"):
        project(nobody)


@pytest.mark.parametrize("rest", [".filter0905p1mdw1-4434-59E0C6FF-3.0", ".recvd-5f5b5d8c7-1-63A0.1", ""])
def test_every_form_of_the_message_id_is_cut_to_what_sending_returned(rest: str) -> None:
    told = rows(sendgrid_event("open", "e1", sg_message_id=f"XBg2anf2TqCy6WXKQFhieQ{rest}"))["email_messages"]
    assert told["message_id"] == "XBg2anf2TqCy6WXKQFhieQ"


def test_a_status_only_moves_forward_whatever_the_clock_says() -> None:
    life = ["processed", "deferred", "delivered", "dropped", "bounce", "open", "click", "unsubscribe", "spamreport"]
    found = [
        str(rows(sendgrid_event(kind, f"e{number}", NOON - number))["email_messages"]["version"])
        for number, kind in enumerate(life)
    ]
    assert found == sorted(set(found))


def test_of_two_events_of_one_status_the_later_is_newer() -> None:
    first, second = (rows(sendgrid_event("open", "same", at))["email_messages"]["version"] for at in (NOON, NOON + 1))
    assert first < second


def test_the_servers_words_are_kept() -> None:
    told = rows(sendgrid_event("deferred", "e1", response="400 try again later"))
    assert told["email_messages"]["reason"] == "400 try again later"


@pytest.mark.parametrize(
    ("kind", "suppression"),
    [("bounce", "bounces"), ("spamreport", "spam_reports"), ("unsubscribe", "unsubscribes")],
)
def test_an_address_that_must_get_no_mail_is_suppressed(kind: str, suppression: str) -> None:
    told = rows(sendgrid_event(kind, "e1"))["email_suppressions"]
    assert (told["email"], told["suppression"], told["active"]) == ("ann@example.com", suppression, True)


def test_a_blocked_message_suppresses_nothing() -> None:
    told = rows(sendgrid_event("bounce", "e1", type="blocked"))
    assert told.keys() == {"email_messages"}
    assert told["email_messages"]["bounce_type"] == "blocked"


def test_a_late_bounce_without_a_message_tells_of_the_address() -> None:
    late = sendgrid_event("bounce", "e1")
    del late.data["sg_message_id"]
    assert rows(late).keys() == {"email_suppressions"}


def test_a_delivery_without_a_message_is_refused() -> None:
    nameless = sendgrid_event("delivered", "e1")
    del nameless.data["sg_message_id"]
    with pytest.raises(ProjectionError, match=r"data\.sg_message_id: Field required"):
        project(nameless)


def test_an_address_can_come_back_to_a_group() -> None:
    left = rows(sendgrid_event("group_unsubscribe", "e1", asm_group_id=7))["email_suppressions"]
    back = rows(sendgrid_event("group_resubscribe", "e2", NOON + 1, asm_group_id=7))["email_suppressions"]
    assert (left["suppression"], left["active"]) == ("group:7", True)
    assert (back["suppression"], back["active"]) == ("group:7", False)
    assert back["version"] > left["version"]


def test_within_a_second_not_to_write_wins() -> None:
    left, back = (
        rows(sendgrid_event(kind, kind, asm_group_id=7))["email_suppressions"]["version"]
        for kind in ("group_unsubscribe", "group_resubscribe")
    )
    assert left > back


def test_a_group_without_its_number_is_refused() -> None:
    with pytest.raises(ProjectionError, match="asm_group_id"):
        project(sendgrid_event("group_unsubscribe", "e1"))


def test_an_event_of_the_account_has_no_row() -> None:
    assert project(sendgrid_event("account_status_change", "e1")) == []
