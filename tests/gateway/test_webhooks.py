from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from events.envelope import Event
from tests.gateway.conftest import Gateway, Serve
from tests.gateway.signing import (
    SENDGRID_KEYS,
    STRIPE_SECRETS,
    body_of,
    public_pem,
    sendgrid_event,
    sendgrid_headers,
    stripe_event,
    stripe_headers,
    stripe_signature,
)


def post_stripe(gateway: Gateway, told: object, **headers: str) -> httpx.Response:
    body = body_of(told)
    return gateway.http.post("/webhooks/stripe", content=body, headers=stripe_headers(body) | headers)


def post_sendgrid(gateway: Gateway, told: object) -> httpx.Response:
    body = body_of(told)
    return gateway.http.post("/webhooks/sendgrid", content=body, headers=sendgrid_headers(body))


def stored(gateway: Gateway) -> list[Event]:
    return [recorded.event for recorded in gateway.log.read(0, 100)]


# --- what is stored --------------------------------------------------------------------------------------------------


def test_an_event_of_stripes_is_stored_whole(gateway: Gateway) -> None:
    told = stripe_event("evt_1")

    answer = post_stripe(gateway, told)

    assert (answer.status_code, answer.json()) == (200, {"received": 1, "new": 1})
    [event] = stored(gateway)
    assert event.type == "stripe.customer.updated"
    assert (event.aggregate_type, event.aggregate_id) == ("customer", "cus_1")
    assert event.data == told
    assert event.timestamp == datetime.fromtimestamp(1_700_000_000, UTC)
    assert (event.metadata.source, event.metadata.dedupe_key) == ("stripe", "evt_1")


def test_a_batch_of_sendgrids_is_stored_item_by_item(gateway: Gateway) -> None:
    delivered, opened = sendgrid_event("1"), sendgrid_event("2", event="open", sg_message_id="other.filter1")

    answer = post_sendgrid(gateway, [delivered, opened])

    assert (answer.status_code, answer.json()) == (200, {"received": 2, "new": 2})
    first, second = stored(gateway)
    assert (first.type, second.type) == ("sendgrid.delivered", "sendgrid.open")
    assert (first.aggregate_type, first.aggregate_id) == ("message", "14c5d75ce93.dfd.64b469")
    assert second.aggregate_id == "other"
    assert (first.data, second.data) == (delivered, opened)
    assert first.timestamp == datetime.fromtimestamp(1_700_000_000, UTC)
    assert (first.metadata.source, first.metadata.dedupe_key) == ("sendgrid", "1")


def test_an_event_that_comes_again_is_acknowledged_and_stored_once(gateway: Gateway) -> None:
    told = stripe_event()

    answers = [post_stripe(gateway, told) for _ in range(3)]

    assert [(answer.status_code, answer.json()["new"]) for answer in answers] == [(200, 1), (200, 0), (200, 0)]
    assert len(stored(gateway)) == 1


def test_a_batch_that_comes_again_with_more_in_it_adds_what_is_new(gateway: Gateway) -> None:
    batch = [sendgrid_event("1"), sendgrid_event("2")]
    post_sendgrid(gateway, batch)

    answer = post_sendgrid(gateway, [*batch, sendgrid_event("3"), sendgrid_event("3")])

    assert answer.json() == {"received": 4, "new": 1}
    assert [event.metadata.dedupe_key for event in stored(gateway)] == ["1", "2", "3"]


def test_an_empty_batch_is_acknowledged(gateway: Gateway) -> None:
    assert post_sendgrid(gateway, []).json() == {"received": 0, "new": 0}


def test_one_item_that_is_no_event_refuses_the_whole_batch(gateway: Gateway) -> None:
    assert post_sendgrid(gateway, [sendgrid_event(), {"email": "zoe@example.com"}]).status_code == 400
    assert stored(gateway) == []


# --- rotation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", STRIPE_SECRETS)
def test_every_active_secret_of_stripes_is_accepted(gateway: Gateway, secret: str) -> None:
    body = body_of(stripe_event())

    answer = gateway.http.post("/webhooks/stripe", content=body, headers=stripe_headers(body, secret))

    assert answer.status_code == 200


def test_stripe_may_sign_with_two_secrets_while_one_is_rolled(gateway: Gateway) -> None:
    body = body_of(stripe_event())
    headers = stripe_headers(body)
    timestamp = int(headers["Stripe-Signature"][2:].partition(",")[0])
    unknown = stripe_signature(body, "whsec_not_ours", timestamp)
    headers["Stripe-Signature"] = headers["Stripe-Signature"].replace(",v1=", f",v1={unknown},v1=")

    assert gateway.http.post("/webhooks/stripe", content=body, headers=headers).status_code == 200


@pytest.mark.parametrize("key", SENDGRID_KEYS)
def test_every_active_key_of_sendgrids_is_accepted(gateway: Gateway, key: EllipticCurvePrivateKey) -> None:
    body = body_of([sendgrid_event()])

    answer = gateway.http.post("/webhooks/sendgrid", content=body, headers=sendgrid_headers(body, key))

    assert answer.status_code == 200


@pytest.mark.parametrize("newline", ["\n", "\\n"], ids=["newlines", "escaped newlines"])
def test_a_key_of_sendgrids_may_have_its_pem_armour(serve: Serve, newline: str) -> None:
    gateway = serve(sendgrid_webhook_keys=public_pem(SENDGRID_KEYS[1]).replace("\n", newline))

    assert post_sendgrid(gateway, [sendgrid_event()]).status_code == 200


# --- our own trouble -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "path", "hint"),
    [
        ({"stripe_webhook_secrets": None}, "stripe", "set PIVOTAL_STRIPE_WEBHOOK_SECRETS"),
        ({"stripe_webhook_secrets": " , "}, "stripe", "set PIVOTAL_STRIPE_WEBHOOK_SECRETS"),
        ({"sendgrid_webhook_keys": None}, "sendgrid", "set PIVOTAL_SENDGRID_WEBHOOK_KEYS"),
        ({"sendgrid_webhook_keys": "bm90IGEga2V5"}, "sendgrid", "copy the verification key from SendGrid"),
        ({"sendgrid_webhook_keys": "!"}, "sendgrid", "copy the verification key from SendGrid"),
    ],
)
def test_a_receiver_that_cannot_verify_says_503_and_which_variable_to_set(
    serve: Serve, caplog: pytest.LogCaptureFixture, settings: Mapping[str, object], path: str, hint: str
) -> None:
    gateway = serve(**settings)
    body = body_of([sendgrid_event()] if path == "sendgrid" else stripe_event())
    headers = sendgrid_headers(body) | stripe_headers(body)

    answer = gateway.http.post(f"/webhooks/{path}", content=body, headers=headers)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert any(hint in vars(record).get("hint", "") for record in caplog.records if record.levelno == logging.ERROR)
    assert stored(gateway) == []


def test_a_locked_log_is_503_until_it_is_free(
    gateway: Gateway, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = stripe_event()
    with closing(sqlite3.connect(tmp_path / "events.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        while_locked = post_stripe(gateway, told)

    assert (while_locked.status_code, while_locked.headers["retry-after"]) == (503, "5")
    assert "database is locked" in caplog.text or "database is locked" in str(vars(caplog.records[-1]))
    assert post_stripe(gateway, told).json() == {"received": 1, "new": 1}


def test_a_removed_log_is_503(gateway: Gateway, tmp_path: Path) -> None:
    post_stripe(gateway, stripe_event())
    (tmp_path / "events.db").unlink()

    assert post_stripe(gateway, stripe_event()).status_code == 503
    assert gateway.http.get("/healthz").status_code == 503


def test_a_bug_of_ours_is_503_and_its_traceback_is_in_the_log(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(_: object) -> list[bool]:
        raise ZeroDivisionError

    monkeypatch.setattr(gateway.log, "publish", publish)

    assert post_stripe(gateway, stripe_event()).status_code == 503
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


# --- ids, health -----------------------------------------------------------------------------------------------------


def test_a_requests_id_is_on_its_answer_its_events_and_in_its_log_lines(gateway: Gateway) -> None:
    given = post_stripe(gateway, stripe_event(), **{"X-Request-ID": "of-the-proxy.1"})
    made = post_stripe(gateway, stripe_event())

    assert given.headers["x-request-id"] == "of-the-proxy.1"
    assert [event.metadata.correlation_id for event in stored(gateway)] == [
        "of-the-proxy.1",
        made.headers["x-request-id"],
    ]


@pytest.mark.parametrize("given", ["", "two words", 'x" level=ERROR', "x" * 65])
def test_an_unfit_request_id_is_replaced(gateway: Gateway, given: str) -> None:
    answer = gateway.http.get("/healthz", headers={"X-Request-ID": given})

    assert answer.headers["x-request-id"] not in ("", given)


def test_health_is_200_while_the_log_can_be_read(gateway: Gateway) -> None:
    answer = gateway.http.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
