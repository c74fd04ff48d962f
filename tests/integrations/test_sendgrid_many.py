"""Sending many mails: shared requests, a result for each, and a row for each in `email_messages`."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from errors import EventLogError
from etl.destinations.warehouse import open_warehouse
from events.cause import Cause, caused_by
from events.log import EventLog, open_log
from gateway.providers.sendgrid import sendgrid_events
from integrations.calls import NOT_SENT, idempotency_key
from integrations.sendgrid import DOUBTFUL, Message, SendGrid, SendGridIntegrationError
from projections.apply import apply_range
from sandbox.serve import Running
from sandbox.wire import Misbehaviour
from tests.integrations.mailing import TRIES, WELCOME, client, sendgrid, told, tries
from tests.integrations.web import Asked, Reply, Web
from tests.projections.test_apply import read_sqlite

__all__ = ["sendgrid", "told"]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with closing(open_log(f"sqlite:///{tmp_path / 'events.db'}")) as log:
        yield log


def mails(*names: str) -> list[Message]:
    return [replace(WELCOME, to=(f"{name}@example.com",), subject=f"Hello {name}") for name in names]


def sizes(web: Web) -> list[int]:
    bodies = [json.loads(asked.body) for asked in web.asked]
    return [sum(len(each["to"]) for each in body["personalizations"]) for body in bodies]


def taking(web: Web) -> None:
    """SendGrid, as far as sending goes."""
    ids, lock = iter(range(1000)), threading.Lock()

    def answer(_: Asked) -> Reply:
        with lock:
            return Reply(b"", 202, {"X-Message-Id": f"m{next(ids)}"})

    web.answer = answer


def test_each_mail_has_its_result_and_its_own_operation_key(sendgrid: SendGrid, told: list[dict[str, Any]]) -> None:
    sent = sendgrid.mail.send_many(mails("ada", "bob", "eve"), operation_id="news-1")
    assert (sent.total, sent.successful, sent.failed) == (3, 3, 0)
    assert [result.index for result in sent.results] == [0, 1, 2]
    assert len({result.message_ids for result in sent.results}) == 1  # one request
    keys = {event["email"]: event["operation_key"] for event in told}
    assert keys == {
        f"{name}@example.com": idempotency_key("sendgrid.mail.send", f"news-1/{index}")
        for index, name in enumerate(("ada", "bob", "eve"))
    }


def test_requests_have_a_thousand_addresses_at_most(served: Running, sendgrid: SendGrid) -> None:
    sent = sendgrid.mail.send_many(mails(*map(str, range(1500))), operation_id="news-1")
    assert (sent.successful, tries(served)) == (1500, 2)
    assert sorted(Counter(result.message_ids for result in sent.results).values()) == [500, 1000]


def test_a_mail_with_more_addresses_is_split_and_has_several_ids(web: Web) -> None:
    taking(web)
    crowd = replace(WELCOME, to=tuple(f"{number}@example.com" for number in range(2100)), bcc=("archive@example.com",))
    sent = client(web.url).mail.send_many([crowd, *mails("ada")], operation_id="news-1", at_once=1)
    assert sizes(web) == [999, 1000, 102]  # the last one with the second mail
    assert [len(result.message_ids) for result in sent.results] == [3, 1]
    copies = [each for asked in web.asked for each in json.loads(asked.body)["personalizations"] if "bcc" in each]
    assert len(copies) == 1


def test_mails_that_differ_or_go_to_one_address_do_not_share_a_request(web: Web) -> None:
    taking(web)
    ada, bob = mails("ada", "bob")
    client(web.url).mail.send_many([ada, bob, ada, replace(bob, text="Bye")], operation_id="news-1", at_once=1)
    assert sizes(web) == [2, 1, 1]


def test_that_one_mail_is_wrong_does_not_keep_the_others(served: Running, sendgrid: SendGrid) -> None:
    wrong = replace(WELCOME, to=("no address",))
    twice = replace(WELCOME, to=("eve@example.com", "eve@example.com"))
    sent = sendgrid.mail.send_many([*mails("ada"), wrong, *mails("bob"), twice], operation_id="news-1")
    assert [result.error is None for result in sent.results] == [True, False, True, False]
    assert (sent.successful, sent.failed, tries(served)) == (2, 2, 2)
    _, second, _, fourth = (result.error for result in sent.results)
    assert "400 Does not contain a valid address. (to.0.email)" in str(second)
    assert "should be unique" in str(fourth)
    assert "valid address" not in str(fourth)
    assert "eve@" not in str(fourth)


def test_what_is_wrong_with_all_of_a_request_is_said_of_each(served: Running, sendgrid: SendGrid) -> None:
    unverified = [replace(mail, sender="unverified@example.com") for mail in mails("ada", "bob")]
    sent = sendgrid.mail.send_many([*unverified, *mails("eve")], operation_id="news-1")
    assert [result.error and result.error.status for result in sent.results] == [403, 403, None]
    assert tries(served) == 2


@pytest.mark.parametrize(
    ("failure", "calls"), [({"status": 500}, 1), ({"kind": "reset"}, 1), ({"status": 429}, 3), ({"status": 503}, 3)]
)
def test_many_mails_are_sent_again_only_if_they_certainly_were_not_taken(
    served: Running, sendgrid: SendGrid, failure: dict[str, Any], calls: int
) -> None:
    rule = {"kind": "error", "service": "sendgrid", "calls": 50, **failure}
    served.sandbox.wire.misbehave(Misbehaviour.model_validate(rule))
    sent = sendgrid.mail.send_many(mails("ada", "bob"), operation_id="news-1")
    assert (sent.failed, tries(served)) == (2, calls)
    assert all(result.error and result.error.retryable == (calls > 1) for result in sent.results)


def test_no_more_requests_are_under_way_than_were_allowed(web: Web) -> None:
    under_way, most, lock, both = 0, 0, threading.Lock(), threading.Event()

    def answer(_: Asked) -> Reply:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        if most == 2:
            both.set()
        both.wait(10)
        with lock:
            under_way -= 1
        return Reply(b"", 202, {"X-Message-Id": "m1"})

    web.answer = answer
    sender = client(web.url)
    different = [replace(mail, text=str(number)) for number, mail in enumerate(mails(*"abcdef"))]
    assert sender.mail.send_many(different, operation_id="news-1", at_once=2).successful == 6
    assert (most, len(web.asked)) == (2, 6)


def test_no_mails_are_no_work(served: Running, sendgrid: SendGrid) -> None:
    assert sendgrid.mail.send_many([], operation_id="news-1").results == ()
    assert tries(served) == 0


# --- what is told of it -----------------------------------------------------------------------------------------


def test_every_mail_is_told_with_its_cause_and_without_an_address(
    served: Running, log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sendgrid = client(served.sendgrid_base, events=log)
    with caused_by(Cause("campaign-7")):
        message_id = sendgrid.mail.send(WELCOME, operation_id="welcome-1")
        sendgrid.mail.send_many(mails("bob", "eve"), operation_id="news-1")
    first, *others = (recorded.event for recorded in log.read(0, 10))
    assert (first.type, first.aggregate_type, first.aggregate_id) == (
        "pivotal.sendgrid.email.sent",
        "message",
        message_id,
    )
    assert {event.metadata.correlation_id for event in (first, *others)} == {"campaign-7"}
    assert (first.data["categories"], len(others)) == (["welcome"], 2)
    assert "@" not in "".join(event.model_dump_json() for event in (first, *others)) + caplog.text


def test_a_rerun_does_not_send_again_what_was_sent(served: Running, log: EventLog) -> None:
    sendgrid = client(served.sendgrid_base, events=log)
    message_id = sendgrid.mail.send(WELCOME, operation_id="welcome-1")
    assert sendgrid.mail.send(WELCOME, operation_id="welcome-1") == message_id
    assert tries(served) == 1
    wrong = replace(WELCOME, to=("no address",))
    first = sendgrid.mail.send_many([*mails("ada"), wrong, *mails("eve")], operation_id="news-1")
    mended = sendgrid.mail.send_many(mails("ada", "bob", "eve"), operation_id="news-1")
    assert (first.failed, mended.failed, tries(served)) == (1, 0, 4)
    kept = [(one.message_ids, other.message_ids) for one, other in zip(first.results, mended.results, strict=True)]
    assert [before == after for before, after in kept] == [True, False, True]
    assert log.counts()["pivotal.sendgrid.email.sent"] == 4


def test_an_operation_id_that_was_used_for_other_addresses_is_refused(served: Running, log: EventLog) -> None:
    sendgrid = client(served.sendgrid_base, events=log)
    message_id = sendgrid.mail.send(WELCOME, operation_id="welcome-1")
    with pytest.raises(SendGridIntegrationError, match=f"used before, for {message_id} to other addresses"):
        sendgrid.mail.send(replace(WELCOME, to=("bob@example.com",)), operation_id="welcome-1")
    sendgrid.mail.send_many(mails("ada"), operation_id="news-1")
    (result,) = sendgrid.mail.send_many(mails("bob"), operation_id="news-1").results
    assert "give every doing an operation id of its own" in str(result.error)
    assert tries(served) == 2


@pytest.mark.parametrize("failure", [{"kind": "reset"}, {"kind": "html", "status": 502}, {"status": 500}])
def test_a_mail_that_may_be_on_its_way_is_not_sent_again_and_sendgrid_tells_whether_it_was(
    served: Running, log: EventLog, told: list[dict[str, Any]], failure: dict[str, Any]
) -> None:
    sendgrid = client(served.sendgrid_base, events=log)
    rule = {"service": "sendgrid", "kind": "error", "done": True, **failure}
    served.sandbox.wire.misbehave(Misbehaviour.model_validate(rule))
    with pytest.raises(SendGridIntegrationError, match="may be on its way"):
        sendgrid.mail.send(WELCOME, operation_id="welcome-1")
    with pytest.raises(SendGridIntegrationError, match="SendGrid has told nothing of it yet") as error:
        sendgrid.mail.send(WELCOME, operation_id="welcome-1")
    assert (error.value.code, error.value.retryable, tries(served)) == (DOUBTFUL, True, 1)
    log.publish(sendgrid_events(json.dumps(told).encode()))
    message_id = sendgrid.mail.send(WELCOME, operation_id="welcome-1")
    assert told[0]["sg_message_id"].startswith(message_id)
    assert sendgrid.mail.send(WELCOME, operation_id="welcome-1") == message_id
    assert (tries(served), log.counts()["pivotal.sendgrid.email.sent"]) == (1, 1)


def test_of_many_mails_those_in_doubt_wait_for_what_sendgrid_tells(
    served: Running, log: EventLog, told: list[dict[str, Any]]
) -> None:
    sendgrid = client(served.sendgrid_base, events=log)
    served.sandbox.wire.misbehave(Misbehaviour(service="sendgrid", kind="reset", done=True))
    assert sendgrid.mail.send_many(mails("ada", "bob"), operation_id="news-1").failed == 2
    lost = list(told)
    again = sendgrid.mail.send_many(mails("ada", "bob", "eve"), operation_id="news-1")
    assert [result.error and result.error.code for result in again.results] == [DOUBTFUL, DOUBTFUL, None]
    log.publish(sendgrid_events(json.dumps(lost).encode()))
    assert sendgrid.mail.send_many(mails("ada", "bob", "eve"), operation_id="news-1").successful == 3
    assert tries(served) == 2


def test_what_certainly_was_not_taken_is_sent_by_a_rerun(served: Running, log: EventLog) -> None:
    sendgrid = client(served.sendgrid_base, events=log)
    for status, calls in ((400, 1), (429, TRIES), (503, TRIES)):
        served.sandbox.wire.misbehave(Misbehaviour(service="sendgrid", kind="error", status=status, calls=calls))
        with pytest.raises(SendGridIntegrationError):
            sendgrid.mail.send(WELCOME, operation_id="welcome-1")
    assert sendgrid.mail.send(WELCOME, operation_id="welcome-1")
    assert log.counts() == {"pivotal.sendgrid.email.sent": 1}


def test_a_mail_whose_sending_was_interrupted_is_in_doubt(
    served: Running, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    sendgrid = client(served.sendgrid_base, events=log)
    monkeypatch.setattr(sendgrid, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sendgrid.mail.send(WELCOME, operation_id="welcome-1")
    monkeypatch.undo()
    with pytest.raises(SendGridIntegrationError, match="an earlier try may have sent it"):
        sendgrid.mail.send(WELCOME, operation_id="welcome-1")


def test_what_json_does_not_know_is_refused_before_anything_is_sent(served: Running, log: EventLog) -> None:
    sendgrid = client(served.sendgrid_base, events=log)
    wrong = replace(WELCOME, template_data={"at": datetime(2026, 11, 24, tzinfo=UTC)})
    with pytest.raises(SendGridIntegrationError, match="datetime is not JSON serializable") as error:
        sendgrid.mail.send(wrong, operation_id="welcome-1")
    assert (error.value.code, tries(served), log.counts()) == (NOT_SENT, 0, {})
    with pytest.raises(SendGridIntegrationError, match="bytes is not JSON serializable"):
        sendgrid.contacts.upsert([{"email": b"ada@example.com"}])  # type: ignore[typeddict-item]


def test_every_mail_is_in_email_messages_once_from_sending_to_the_last_event(
    served: Running, log: EventLog, told: list[dict[str, Any]], tmp_path: Path
) -> None:
    warehouse = open_warehouse(f"sqlite:///{tmp_path / 'warehouse.db'}")

    def rows() -> list[dict[str, Any]]:
        apply_range(log, warehouse, None, log.head(), run_id="run")
        return read_sqlite(tmp_path / "warehouse.db", "email_messages")

    sendgrid = client(served.sendgrid_base, events=log)
    many = [*mails("Ada", "bounce"), replace(WELCOME, to=("Bob <bob@example.com>",), html=None)]
    sent = sendgrid.mail.send_many(many, operation_id="news-1")
    ids = [result.message_ids[0] for result in sent.results]
    before = rows()
    assert sorted((row["message_id"], row["status"], row["email"]) for row in before) == sorted(
        (id_, "sent", None) for id_ in ids
    )
    log.publish(sendgrid_events(json.dumps(told).encode()))
    after = rows()
    assert {(row["message_id"], row["email"], row["status"]) for row in after} == {
        (ids[0], "ada@example.com", "click"),
        (ids[1], "bounce@example.com", "bounce"),
        (ids[2], "bob@example.com", "delivered"),
    }
    keys = {idempotency_key("sendgrid.mail.send", f"news-1/{index}") for index in range(3)}
    assert {row["operation_key"] for row in before} == {row["operation_key"] for row in after} == keys


def test_a_mail_stays_sent_if_the_event_log_is_out_of_order(
    served: Running, log: EventLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise EventLogError("the disk is full")

    monkeypatch.setattr(log, "publish", broken)
    assert client(served.sendgrid_base, events=log).mail.send(WELCOME, operation_id="welcome-1")
    assert "the disk is full" in caplog.text
