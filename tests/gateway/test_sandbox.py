"""The sandbox signs by code of its own; the receiver takes what it sends."""

from __future__ import annotations

import time

import httpx

from sandbox.app import Sandbox
from sandbox.serve import running
from sandbox.webhooks import Endpoint
from tests.gateway.conftest import Serve


def test_what_happens_in_the_sandbox_is_stored(serve: Serve) -> None:
    sandbox = Sandbox()
    gateway = serve(
        stripe_webhook_secrets=sandbox.stripe_webhook_secret, sendgrid_webhook_keys=sandbox.sendgrid_signer.public_key
    )
    mail = {
        "personalizations": [{"to": [{"email": "ada@example.com"}]}],
        "from": {"email": "shop@example.com"},
        "subject": "Welcome",
        "content": [{"type": "text/plain", "value": "Hello"}],
    }
    with running(sandbox) as served:
        for service in ("stripe", "sendgrid"):
            url = f"http://127.0.0.1:{gateway.port}/webhooks/{service}"
            sandbox.webhooks.endpoints.append(Endpoint(service=service, url=url))
        bearer = {"Authorization": "Bearer sk_test_sandbox"}
        httpx.post(f"{served.stripe_base}/v1/customers", data={"name": "Ada"}, headers=bearer).raise_for_status()
        bearer = {"Authorization": "Bearer SG.of.tests"}
        httpx.post(f"{served.sendgrid_base}/v3/mail/send", json=mail, headers=bearer).raise_for_status()
        while {"stripe.customer.created", "sendgrid.delivered"} - set(gateway.log.counts()):
            time.sleep(0.02)

    assert {attempt for delivery in sandbox.webhooks.deliveries for attempt in delivery.attempts} == {"200"}
