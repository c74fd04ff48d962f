"""What has become of messages while the receiver was down."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from pydantic import SecretStr

from etl.destinations.warehouse import Warehouse
from events.log import EventLog
from integrations.calls import idempotency_key
from integrations.twilio import Sms, Twilio, TwilioConfig
from reconciliation.twilio import reconcile_twilio
from sandbox.serve import Running
from sandbox.sms import NUMBERS
from sandbox.twilio import ACCOUNT
from sandbox.webhooks import Endpoint
from tests.gateway.conftest import serving
from tests.reconciliation.conftest import Rows

ADA = "+14155550100"
Read = Callable[..., tuple[int, int]]


@pytest.fixture
def twilio(served: Running, log: EventLog) -> Iterator[Twilio]:
    with Twilio(TwilioConfig(account_sid=ACCOUNT, secret=SecretStr("x"), api_base=served.twilio_base), log) as client:
        yield client


@pytest.fixture
def read(twilio: Twilio, log: EventLog, warehouse: Warehouse) -> Read:
    def reading(minutes: float = 6) -> tuple[int, int]:
        now = datetime.now(UTC) + timedelta(minutes=minutes)
        found = reconcile_twilio(twilio, log, warehouse, run_id="run", now=now)
        return found.read, found.new

    return reading


def receive(served: Running, body: str) -> None:
    httpx.post(f"{served.url}/_sandbox/twilio/inbound", json={"sender": ADA, "body": body}).raise_for_status()


def test_a_message_comes_to_its_end_in_the_row_that_sending_made(twilio: Twilio, read: Read, rows: Rows) -> None:
    twilio.messages.send(Sms(to=ADA, sender=NUMBERS[0], body="Hello"), operation_id="hello-1")
    rows("sms_messages")
    assert read() == (1, 1)
    (row,) = rows("sms_messages")
    assert (row["status"], row["direction"], row["to_number"], row["body"]) == ("delivered", "outbound", ADA, None)
    assert row["operation_key"] == idempotency_key("twilio.messages.create", "hello-1")
    assert read() == (1, 0)


def test_since_leaves_no_gap_behind_a_first_reading(
    served: Running, twilio: Twilio, log: EventLog, warehouse: Warehouse
) -> None:
    receive(served, "Thanks")
    later = datetime.now(UTC) + timedelta(hours=9)
    now = datetime.now(UTC) + timedelta(minutes=6)
    assert reconcile_twilio(twilio, log, warehouse, run_id="run", since=later, now=now).new == 1


def test_who_answered_stop_while_nobody_listened_gets_no_more(served: Running, read: Read, rows: Rows) -> None:
    receive(served, "STOP")
    read()
    assert [(row["number"], row["active"]) for row in rows("sms_suppressions")] == [(ADA, 1)]
    httpx.post(f"{served.url}/_sandbox/clock", json={"seconds": 60}).raise_for_status()
    receive(served, "START")
    assert read(minutes=7) == (2, 1)
    assert [(row["number"], row["active"]) for row in rows("sms_suppressions")] == [(ADA, 0)]


def test_the_webhook_which_tells_more_of_a_message_is_not_overtaken(served: Running, read: Read) -> None:
    receive(served, "STOP")
    assert read(minutes=4) == (0, 0)
    assert read(minutes=6) == (1, 1)


def test_what_the_webhook_brought_is_a_duplicate(served: Running, log: EventLog, read: Read) -> None:
    with serving(log, {"twilio_webhook_tokens": served.sandbox.twilio_auth_token}) as gateway:
        url = f"http://127.0.0.1:{gateway.port}/webhooks/twilio"
        served.sandbox.webhooks.endpoints.append(Endpoint(service="twilio", url=url))
        receive(served, "Thanks")
        while not log.head():
            time.sleep(0.01)
    assert read() == (1, 0)
