"""Requests that a receiver on the open Internet gets: none is stored, none is a 500, and the log says why."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from events.sqlite import SqliteEventLog
from tests.gateway.conftest import Gateway, Serve, serving
from tests.gateway.hostile import (
    BODY_LIMIT,
    CANARY,
    DECLARED,
    EVENT,
    HUB_SECRET,
    ODD_BUT_GOOD,
    TABLE,
    TIMEOUT,
    WATCH_SECRET,
    Case,
    says,
)
from tests.gateway.raw import connected, exchange, rest, statuses, stripe
from tests.gateway.signing import STRIPE_SECRETS, TWILIO_TOKENS

CASES = {f"{who}: {what}": case for who, cases in TABLE.items() for what, case in cases.items()}
LIMITS = {
    "webhook_body_limit": BODY_LIMIT,
    "gateway_body_timeout": TIMEOUT,
    "gateway_header_timeout": TIMEOUT,
    "google_watch_secret": WATCH_SECRET,
    "outlook_watch_secret": WATCH_SECRET,
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One receiver for the whole table: what is refused leaves nothing behind."""
    root = tmp_path_factory.mktemp("project")
    (root / "webhooks.yaml").write_text(DECLARED)
    with pytest.MonkeyPatch.context() as patch, closing(SqliteEventLog(root / "events.db")) as log:
        patch.setenv("HUB_SECRETS", HUB_SECRET)
        with serving(log, {"root": root, **LIMITS}) as served:
            yield served


@pytest.mark.parametrize("name", CASES)
def test_is_refused(gateway: Gateway, caplog: pytest.LogCaptureFixture, name: str) -> None:
    case: Case = CASES[name]

    answer, body = exchange(gateway.port, case.make())

    assert answer.status == case.status
    assert gateway.log.head() == 0
    told = refusals(caplog)
    assert any(re.search(case.reason, one["reason"]) and one["status"] == case.status for one in told)
    for secret in (*STRIPE_SECRETS, *TWILIO_TOKENS, WATCH_SECRET, HUB_SECRET, CANARY):
        assert secret not in f"{told}{caplog.text}{body}"


def refusals(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if "refused" in record.getMessage()]


def test_the_same_requests_are_taken_when_they_are_good(serve: Serve) -> None:
    """Else they could be refused for another reason than the one that they are to show."""
    gateway = serve()

    answers = {name: exchange(gateway.port, make()) for name, make in ODD_BUT_GOOD.items()}

    assert {name: answer.status for name, (answer, _) in answers.items()} == dict.fromkeys(ODD_BUT_GOOD, 200)
    assert [body for _, body in answers.values()] == [
        '{"received":1,"new":1}',
        *['{"received":1,"new":0}'] * (len(answers) - 1),
    ]
    assert gateway.log.head() == 1


def test_a_sender_that_goes_away_stores_nothing(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    with connected(gateway.port) as connection:
        connection.sendall(stripe(EVENT)[:-1])

    while not any("the sender went away" in refusal["reason"] for refusal in refusals(caplog)):
        time.sleep(0.01)
    assert gateway.log.head() == 0


def test_trouble_with_one_request_does_not_touch_the_next_on_the_connection(serve: Serve) -> None:
    gateway = serve()
    requests = (says("garbage"), stripe(), stripe(b"{}"), stripe(Connection="close"))

    with connected(gateway.port) as connection:
        connection.sendall(b"".join(requests))

        assert statuses(rest(connection)) == [400, 200, 400, 200]
