"""The sandbox signs by code of its own; the receiver takes what it sends."""

from __future__ import annotations

import time

import httpx

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
