"""The sandbox signs by code of its own; the receiver takes what it sends."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from etl.destinations.warehouse import open_warehouse
from integrations.calls import idempotency_key
from integrations.twilio import Sms, Twilio, TwilioConfig, TwilioIntegrationError
from projections.apply import apply_range
from sandbox.app import Sandbox
from sandbox.serve import running
from sandbox.sms import NUMBERS
from sandbox.webhooks import Endpoint, Service
from tests.gateway.conftest import Serve

SERVICES: tuple[Service, ...] = ("stripe", "sendgrid", "twilio")
LANDED = {
    "stripe.customer.created",
    "sendgrid.delivered",
    "twilio.message.sent",
    "twilio.message.delivered",
    "twilio.message.received",
}
ACCOUNT = "AC" + "0" * 32
ADA = "+14155550100"


def test_what_happens_in_the_sandbox_is_stored(serve: Serve) -> None:
    sandbox = Sandbox()
    gateway = serve(
        stripe_webhook_secrets=sandbox.stripe_webhook_secret,
        sendgrid_webhook_keys=sandbox.sendgrid_signer.public_key,
        twilio_webhook_tokens=sandbox.twilio_auth_token,
    )
    mail = {
        "personalizations": [{"to": [{"email": "ada@example.com"}]}],
        "from": {"email": "shop@example.com"},
        "subject": "Welcome",
        "content": [{"type": "text/plain", "value": "Hello"}],
    }
    with running(sandbox) as served:
        for service in SERVICES:
            url = f"http://127.0.0.1:{gateway.port}/webhooks/{service}"
            sandbox.webhooks.endpoints.append(Endpoint(service=service, url=url))
        bearer = {"Authorization": "Bearer sk_test_sandbox"}
        httpx.post(f"{served.stripe_base}/v1/customers", data={"name": "Ada"}, headers=bearer).raise_for_status()
        bearer = {"Authorization": "Bearer SG.of.tests"}
        httpx.post(f"{served.sendgrid_base}/v3/mail/send", json=mail, headers=bearer).raise_for_status()
        sms = {"To": "+14155550100", "From": NUMBERS[0], "Body": "Hello", "StatusCallback": f"{url}?operation_key=k"}
        path = f"{served.twilio_base}/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
        httpx.post(path, data=sms, auth=(ACCOUNT, "x")).raise_for_status()
        answer = {"sender": "+14155550100", "body": "Zoë: STOP"}
        httpx.post(f"{served.url}/_sandbox/twilio/inbound", json=answer).raise_for_status()
        while LANDED - set(gateway.log.counts()):
            time.sleep(0.02)

    assert {attempt for delivery in sandbox.webhooks.deliveries for attempt in delivery.attempts} == {"200"}


def test_a_message_is_one_row_from_sending_to_its_end_and_who_answers_stop_gets_no_more(
    serve: Serve, tmp_path: Path
) -> None:
    sandbox = Sandbox()
    gateway = serve(twilio_webhook_tokens=f"{sandbox.twilio_auth_token}, an older one")
    hook = f"http://127.0.0.1:{gateway.port}/webhooks/twilio"
    sandbox.webhooks.endpoints.append(Endpoint(service="twilio", url=hook))
    warehouse = open_warehouse(f"sqlite:///{tmp_path / 'warehouse.db'}")

    def held(table: str) -> list[dict[str, object]]:
        apply_range(gateway.log, warehouse, None, gateway.log.head(), run_id="run")
        with closing(sqlite3.connect(tmp_path / "warehouse.db")) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]

    with running(sandbox) as served:
        config = TwilioConfig(
            account_sid=ACCOUNT, secret=SecretStr("x"), api_base=served.twilio_base, status_callback=hook
        )
        with Twilio(config, gateway.log) as twilio:
            hello = Sms(to=ADA, sender=NUMBERS[0], body="Hello")
            sid = twilio.messages.send(hello, operation_id="hello-1").message.sid
            while "twilio.message.delivered" not in gateway.log.counts():
                time.sleep(0.02)
            (row,) = held("sms_messages")
            httpx.post(f"{served.url}/_sandbox/twilio/inbound", json={"sender": ADA, "body": "STOP"}).raise_for_status()
            while "twilio.message.received" not in gateway.log.counts():
                time.sleep(0.02)
            with pytest.raises(TwilioIntegrationError, match="unsubscribed"):
                twilio.messages.send(hello, operation_id="hello-2")
    assert [row[name] for name in ("message_sid", "status", "to_number", "direction", "operation_key")] == [
        sid,
        "delivered",
        ADA,
        "outbound",
        idempotency_key("twilio.messages.create", "hello-1"),
    ]
    (suppressed,) = held("sms_suppressions")
    assert [suppressed[name] for name in ("number", "sender", "active")] == [ADA, NUMBERS[0], 1]
