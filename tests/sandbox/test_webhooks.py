"""Stripe's webhooks, the sandbox's own API, and what can go wrong on the wire."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
import stripe

from sandbox.serve import Running
from tests.sandbox.conftest import SECRET, Receiver

pytestmark = pytest.mark.usefixtures("served")

Until = Callable[[Callable[[], bool]], None]


@pytest.fixture(scope="module")
def admin(_server: Running) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{_server.url}/_sandbox") as client:
        yield client


def test_a_change_is_told_to_the_endpoint_with_a_signature_that_the_secret_verifies(
    admin: httpx.Client, stripe_http: httpx.Client, receiver: Receiver, until: Until
) -> None:
    assert admin.post("/webhooks", json={"service": "stripe", "url": receiver.url}).status_code == 204
    customer = stripe_http.post("/v1/customers", data={"name": "Zoë"}).json()
    until(lambda: bool(receiver.taken))
    headers, body = receiver.taken[0]
    event = stripe.Webhook.construct_event(body, headers["stripe-signature"], SECRET)
    assert (event.type, event.data.object["id"], event.pending_webhooks) == ("customer.created", customer["id"], 1)
    time, signature = (part.partition("=")[2] for part in headers["stripe-signature"].split(","))
    expected = hmac.new(SECRET.encode(), f"{time}.".encode() + body, hashlib.sha256).hexdigest()
    assert signature == expected


def test_a_webhook_that_is_not_taken_is_sent_again_and_the_deliveries_say_so(
    admin: httpx.Client, stripe_http: httpx.Client, receiver: Receiver, until: Until
) -> None:
    receiver.statuses = [503, 500]
    admin.post("/webhooks", json={"service": "stripe", "url": receiver.url})
    stripe_http.post("/v1/customers", data={"name": "Ada"})
    until(lambda: admin.get("/deliveries").json()[0]["state"] == "delivered")
    (delivery,) = admin.get("/deliveries").json()
    (event,) = stripe_http.get("/v1/events").json()["data"]
    assert delivery["attempts"] == ["503", "500", "200"]
    assert delivery["events"] == [event["id"]]
    assert [json.loads(body)["id"] for _, body in receiver.taken] == [event["id"]]


def test_a_webhook_waits_for_a_receiver_that_is_not_there_yet(
    admin: httpx.Client, stripe_http: httpx.Client, until: Until
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        admin.post("/webhooks", json={"service": "stripe", "url": f"http://127.0.0.1:{taken.getsockname()[1]}"})
        stripe_http.post("/v1/customers", data={"name": "Ada"})
        until(lambda: len(admin.get("/deliveries").json()[0]["attempts"]) > 1)
    (delivery,) = admin.get("/deliveries").json()
    assert (delivery["state"], set(delivery["attempts"])) == ("pending", {"ConnectError"})


def test_the_sandbox_is_seeded_reset_and_asked_for_its_calls_over_http(
    admin: httpx.Client, stripe_http: httpx.Client
) -> None:
    admin.post("/seed", json={"customers": 3})
    assert len(stripe_http.get("/v1/customers").json()["data"]) == 3
    assert [call["path"] for call in admin.get("/calls").json()] == ["/v1/customers"]
    admin.post("/reset")
    assert admin.get("/calls").json() == []
    assert stripe_http.get("/v1/customers").json()["data"] == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/misbehave", {"service": "stripe", "kind": "explode"}),
        ("/misbehave", {"service": "paypal", "kind": "reset"}),
        ("/misbehave", {"service": "stripe", "kind": "error", "rate": 0}),
        ("/webhooks", {"service": "stripe"}),
        ("/seed", {"customers": -1}),
    ],
)
def test_what_the_sandbox_cannot_do_is_refused(admin: httpx.Client, path: str, body: dict[str, object]) -> None:
    assert admin.post(path, json=body).status_code == 422


def test_misbehaviour_ends_after_the_calls_it_was_for(admin: httpx.Client, stripe_http: httpx.Client) -> None:
    admin.post("/misbehave", json={"service": "stripe", "kind": "error", "status": 429, "retry_after": "7", "calls": 2})
    answers = [stripe_http.get("/v1/customers") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert answers[0].json()["error"]["code"] == "rate_limit"


def test_misbehaviour_by_rate_hits_a_share_of_the_calls_and_the_same_ones_for_the_same_seed(
    admin: httpx.Client, stripe_http: httpx.Client
) -> None:
    def wrong(seed: int) -> list[int]:
        rule = {"service": "stripe", "kind": "error", "status": 503, "calls": 50, "rate": 0.2, "seed": seed}
        admin.post("/misbehave", json=rule).raise_for_status()
        statuses = [stripe_http.get("/v1/customers").status_code for _ in range(50)]
        assert set(statuses) == {200, 503}
        return [number for number, status in enumerate(statuses) if status == 503]

    first, again, other = wrong(1), wrong(1), wrong(2)
    assert first == again != other
    assert 3 <= len(first) <= 20
    assert stripe_http.get("/v1/customers").status_code == 200


def test_a_reset_is_a_reset_and_a_cut_is_half_a_body(admin: httpx.Client, stripe_http: httpx.Client) -> None:
    admin.post("/misbehave", json={"service": "stripe", "kind": "reset"})
    with pytest.raises(httpx.ReadError):
        stripe_http.get("/v1/customers")
    admin.post("/misbehave", json={"service": "stripe", "kind": "cut"})
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        stripe_http.get("/v1/customers")


def test_work_whose_answer_gets_lost_is_done(admin: httpx.Client, stripe_http: httpx.Client) -> None:
    admin.post("/misbehave", json={"service": "stripe", "kind": "html", "status": 502, "done": True})
    answer = stripe_http.post("/v1/customers", data={"name": "Ada"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (502, "text/html; charset=utf-8")
    assert [each["name"] for each in stripe_http.get("/v1/customers").json()["data"]] == ["Ada"]
