"""The sandbox's SendGrid, as the official SDK sees it; and without the SDK, where the SDK is too well-behaved."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sendgrid import SendGridAPIClient
from sendgrid.helpers.eventwebhook import EventWebhook

from sandbox.serve import Running
from sandbox.webhooks import Endpoint
from tests.sandbox.conftest import Receiver

pytestmark = pytest.mark.usefixtures("served")

Until = Callable[[Callable[[], bool]], None]


def mail(to: str = "ada@example.com", /, **changes: Any) -> dict[str, Any]:
    """A mail that SendGrid takes."""
    whole = {
        "personalizations": [{"to": [{"email": to}]}],
        "from": {"email": "shop@example.com"},
        "subject": "Welcome",
        "content": [
            {"type": "text/plain", "value": "Hello"},
            {"type": "text/html", "value": '<a href="https://example.com/start">Hello</a>'},
        ],
    }
    return {name: value for name, value in {**whole, **changes}.items() if value is not None}


@pytest.fixture
def sdk(served: Running) -> SendGridAPIClient:
    return SendGridAPIClient("SG.of.tests", host=served.sendgrid_base)


def events(receiver: Receiver) -> list[dict[str, Any]]:
    return [event for _, body in receiver.taken for event in json.loads(body)]


def test_a_mail_is_accepted_with_its_message_id(sdk: SendGridAPIClient) -> None:
    answer = sdk.send(mail())
    assert answer.status_code == 202
    assert len(answer.headers["X-Message-Id"]) == 22


def test_what_becomes_of_a_mail_arrives_in_signed_batches(
    served: Running, sdk: SendGridAPIClient, receiver: Receiver, until: Until
) -> None:
    served.sandbox.webhooks.endpoints.append(Endpoint(service="sendgrid", url=receiver.url))
    message_id = sdk.send(mail(categories=["welcome"], custom_args={"order": "4711"})).headers["X-Message-Id"]
    until(lambda: len(events(receiver)) == 4)
    told = events(receiver)
    assert sorted(event["event"] for event in told) == ["click", "delivered", "open", "processed"]
    assert len({event["sg_event_id"] for event in told}) == 4
    for event in told:
        assert event["sg_message_id"].startswith(f"{message_id}.")
        assert (event["email"], event["category"], event["order"]) == ("ada@example.com", ["welcome"], "4711")
    key = sdk.client.user.webhooks.event.settings.signed.get().to_dict["public_key"]
    assert key == served.sandbox.sendgrid_signer.public_key
    for headers, body in receiver.taken:
        signature = headers["x-twilio-email-event-webhook-signature"]
        timestamp = headers["x-twilio-email-event-webhook-timestamp"]
        verifier = EventWebhook(key)
        assert verifier.verify_signature(body.decode(), signature, timestamp)
        assert not verifier.verify_signature(body.decode() + " ", signature, timestamp)
        assert not verifier.verify_signature(body.decode(), signature, f"{int(timestamp) + 1}")


def test_an_address_that_bounces_is_suppressed_and_dropped_from_then_on(
    served: Running, sdk: SendGridAPIClient, receiver: Receiver, until: Until
) -> None:
    served.sandbox.webhooks.endpoints.append(Endpoint(service="sendgrid", url=receiver.url))
    sdk.send(mail("bounce@example.com"))
    until(lambda: len(events(receiver)) == 2)
    assert [event["event"] for event in events(receiver)] == ["processed", "bounce"]
    assert events(receiver)[1]["status"] == "5.1.1"
    sdk.send(mail("Bounce@example.com"))
    until(lambda: len(events(receiver)) == 3)
    assert events(receiver)[2]["event"] == "dropped"
    assert [each["email"] for each in json.loads(sdk.client.suppression.bounces.get().body)] == ["bounce@example.com"]


def test_bounces_are_listed_by_offset(sdk: SendGridAPIClient) -> None:
    for number in range(5):
        sdk.send(mail(f"bounce@host-{number}.example.com"))
    bounces = sdk.client.suppression.bounces
    pages = [json.loads(bounces.get(query_params={"limit": 2, "offset": offset}).body) for offset in (0, 2, 4, 6)]
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert len({bounce["email"] for page in pages for bounce in page}) == 5


NOT_ACTED_ON = "the sandbox does not act on this field"
TWICE = {"email": "ada@example.com"}

# what is wrong -> field, a part of the message
WRONG: list[tuple[dict[str, Any], str | None, str]] = [
    ({"personalizations": None}, "personalizations", "must have at least one personalization"),
    ({"personalizations": []}, "personalizations", "must have at least one personalization"),
    ({"personalizations": [{}]}, "personalizations.0.to", "The to array is required"),
    ({"personalizations": [{"to": []}]}, "personalizations.0.to", "The to array is required"),
    ({"personalizations": [{"to": [{"name": "Ada"}]}]}, "personalizations.0.to.0.email", "email parameter is required"),
    ({"personalizations": [{"to": [{"email": "ada"}]}]}, "personalizations.0.to.0.email", "a valid address"),
    ({"personalizations": [{"to": [TWICE], "cc": [TWICE]}]}, "personalizations.0", "should be unique between to, cc"),
    ({"personalizations": [{"to": [{"email": f"{n}@example.com"} for n in range(1001)]}]}, "personalizations", "limit"),
    ({"from": None}, "from", "The from object must be provided"),
    ({"from": {"email": "shop"}}, "from.email", "The from email does not contain a valid address"),
    ({"subject": None}, "subject", "The subject is required"),
    ({"content": None}, "content", "the content parameter is required"),
    ({"content": [{"type": "text/plain", "value": ""}]}, "content.0.value", "at least one character"),
    ({"content": [{"value": "x"}]}, "content.0.type", "The type parameter is required"),
    ({"content": [{"type": "text/html", "value": "x"}, {"type": "text/plain", "value": "x"}]}, "content", "be first"),
    ({"content": [{"type": "text/plain", "value": "x"}] * 2}, "content", "may only be provided once"),
    ({"categories": [str(number) for number in range(11)]}, "categories", "cannot be more than 10"),
    ({"categories": ["a", "a"]}, "categories", "must contain unique items"),
    ({"categories": ["a" * 256]}, "categories", "must not exceed 255"),
    ({"custom_args": {"order": 4711}}, None, "Bad Request"),
    ({"subject": 5}, None, "Bad Request"),
    ({"sbuject": "x"}, "sbuject", NOT_ACTED_ON),
    ({"subject": ""}, "subject", "at least one character"),
    ({"template_id": "d-1"}, "template_id", "must be a valid GUID"),
    ({"send_at": 4_000_000_000}, "send_at", "72 hours in advance is forbidden"),
    ({"personalizations": [{"to": [TWICE], "send_at": 4_000_000_000}]}, "personalizations.0.send_at", "72 hours"),
    ({"attachments": [{"content": "§", "filename": "a.txt"}]}, "attachments.0.content", "must be base64 encoded"),
    ({"attachments": [{"content": "YQ=="}]}, "attachments.0.filename", "filename is required"),
    ({"attachments": [{"content": "YQ==", "filename": "a\r\nb"}]}, "attachments.0.filename", "CRLF"),
    ({"attachments": [{"content": "YQ==", "filename": "a", "disposition": "x"}]}, "attachments.0.disposition", ""),
    ({"asm": {"group_id": 7}}, "asm.group_id", "must be a valid Group ID on your account"),
    ({"batch_id": "x"}, "batch_id", NOT_ACTED_ON),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "field", "message"), WRONG)
def test_a_wrong_mail_is_refused_as_sendgrid_refuses_it(
    sendgrid_http: httpx.Client, wrong: dict[str, Any], field: str | None, message: str
) -> None:
    answer = sendgrid_http.post("/v3/mail/send", json=mail(**wrong))
    assert answer.status_code == 400
    mistakes = answer.json()["errors"]
    assert [each["field"] for each in mistakes if message in each["message"]] == [field]


UNVERIFIED = {**mail(), "from": {"email": "unverified@example.com"}}


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "message"),
    [
        ("/v3/mail/send", {"Authorization": ""}, b"{}", 401, "authorization grant is invalid"),
        ("/v3/mail/send", {"Authorization": "Bearer sk_test"}, b"{}", 401, "authorization grant is invalid"),
        ("/v3/mail/send", {"Content-Type": "text/plain"}, b"{}", 415, "Content-Type should be application/json."),
        ("/v3/mail/send", {}, b"{", 400, "Bad Request"),
        ("/v3/mail/sned", {}, b"{}", 404, "Not Found"),
        ("/v3/mail/send", {}, json.dumps(UNVERIFIED).encode(), 403, "verified"),
    ],
)  # fmt: skip
def test_other_wrong_requests_are_refused_as_sendgrid_refuses_them(
    sendgrid_http: httpx.Client, path: str, headers: dict[str, str], body: bytes, status: int, message: str
) -> None:
    answer = sendgrid_http.post(path, content=body, headers={"Content-Type": "application/json", **headers})
    assert answer.status_code == status
    assert message in answer.json()["errors"][0]["message"]
