"""Whatever comes, a provider takes it or refuses it: no other exception, and what it takes can be stored.

`PIVOTAL_FUZZ_EXAMPLES=20000 .venv/bin/pytest tests/gateway/test_fuzz.py` looks further.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers

from events.envelope import Event
from gateway.declared import ApiKey, Hmac, Reading, Standard
from gateway.provider import Hook, Provider
from gateway.providers import providers
from gateway.providers.custom import Custom
from gateway.refusal import RefusedError
from settings import Settings
from tests.events.strategies import JSON, TEXT
from tests.gateway.signing import JSON as OF_JSON
from tests.gateway.signing import (
    MAIL,
    SECRETS,
    WATCH_SECRETS,
    body_of,
    google_headers,
    mail_form,
    mail_headers,
    outlook_change,
    outlook_lifecycle,
    sendgrid_event,
    sendgrid_headers,
    stripe_event,
    stripe_headers,
    twilio_headers,
    twilio_inbound,
    twilio_status,
)
from tests.gateway.test_custom import NEW, PLAIN, VARIABLES, hub, standard

EXAMPLES = int(os.environ.get("PIVOTAL_FUZZ_EXAMPLES", "20"))
URL = "https://hooks.example.com/webhooks/twilio"
SETTINGS = Settings.model_validate(
    {name.removeprefix("PIVOTAL_").lower(): value for name, value in SECRETS.items()} | {"sendgrid_attachment_limit": 5}
)
READINGS = st.sampled_from(
    [
        Reading(),
        Reading(type="header:X-Type", id="data.object.id", aggregate="data.id", time="data.time"),
        Reading(id="header:X-Id", aggregate="header:X-Id", aggregate_type="thing"),
    ]
)
PROVIDERS: dict[str, Provider] = {each.name: each for each in providers(SETTINGS)}

VALUES = JSON | st.sampled_from(["1", 1, True, 2**70, "2024-01-01T00:00:00Z", -1e300, {"id": "x"}, [[]], "", "\0"])
NAMES = [
    "id", "type", "event", "created", "timestamp", "data", "object", "related_object", "parent", "subscription_details",
    "subscription", "sg_message_id", "sg_event_id", "MessageSid", "MessageStatus", "SmsStatus", "ErrorCode", "value",
    "subscriptionId", "clientState", "lifecycleEvent", "resourceData", "changeType", "charsets", "text", "envelope",
]  # fmt: skip
OBJECTS = st.recursive(
    st.dictionaries(st.sampled_from(NAMES) | TEXT, VALUES, max_size=5),
    lambda inner: st.dictionaries(st.sampled_from(NAMES), inner | VALUES, max_size=5),
    max_leaves=8,
)
HEADER_NAMES = [
    "Stripe-Signature", "X-Twilio-Signature", "X-Twilio-Webhooks-Signature-Settings", "Authorization", "X-Api-Key",
    "X-Twilio-Email-Event-Webhook-Signature", "X-Twilio-Email-Event-Webhook-Timestamp", "webhook-id",
    "webhook-timestamp", "webhook-signature", "X-Hub-Signature-256", "Content-Type", "X-Type", "X-Id",
    *google_headers(),
]  # fmt: skip
HEADER_VALUES = (
    st.text(st.characters(max_codepoint=255), max_size=40)
    | st.sampled_from(["t=1,v1=00", "v1,eA== v1,", "Basic eDp5", "Basic /////w==", "sha256=00", "1700000000", "9" * 11])
    | st.sampled_from(["multipart/form-data", "multipart/form-data; boundary=\xff", "application/json"])
)


def broken(*samples: bytes) -> st.SearchStrategy[bytes]:
    """One of them, with a piece of it replaced."""

    def replaced(parts: tuple[bytes, float, int, bytes]) -> bytes:
        sample, where, length, piece = parts
        at = int(where * len(sample))
        return sample[:at] + piece + sample[at + length :]

    return st.tuples(
        st.sampled_from(samples), st.floats(0, 1), st.integers(0, 20), st.binary(max_size=8) | TEXT.map(str.encode)
    ).map(replaced)


BODIES = st.binary(max_size=200) | (VALUES | OBJECTS).map(body_of)
STRIPE = BODIES | OBJECTS.map(lambda told: body_of(stripe_event() | told))
SENDGRID = BODIES | st.lists(OBJECTS.map(lambda told: {"event": "open", **told}), max_size=3).map(body_of)
NOTICES = st.builds(
    lambda item, told: body_of({"value": [item | told | {"clientState": WATCH_SECRETS[0]}]}),
    st.sampled_from([outlook_change(), outlook_lifecycle("missed"), {}]),
    OBJECTS,
)
MAILS = st.builds(
    lambda fields, files: mail_form(MAIL | fields, files),
    st.dictionaries(st.sampled_from(["charsets", "text", "html", "envelope", "x"]), st.binary(max_size=40), max_size=4),
    st.dictionaries(st.sampled_from(["a.pdf", "ü", ""]), st.binary(max_size=20), max_size=2),
)
CHARSETS = st.builds(
    lambda charset, text: mail_form({"text": text, "charsets": body_of({"text": charset})}),
    st.sampled_from(["utf-7", "utf-16", "idna", "punycode", "rot13", "hz", "gb18030", "cp037", "mbcs", "undefined"])
    | TEXT,
    st.binary(max_size=40),
)


def signed_for_twilio(params: Mapping[str, str]) -> tuple[str, Mapping[str, str], bytes]:
    return URL, twilio_headers(URL, params), urlencode(params).encode()


def vouched_by_twilio(body: bytes) -> tuple[str, Mapping[str, str], bytes]:
    url = f"{URL}?bodySHA256={hashlib.sha256(body).hexdigest()}"
    return url, twilio_headers(url, {}), body


Request = tuple[str, Mapping[str, str], bytes]
GENUINE: dict[str, st.SearchStrategy[Request]] = {
    "stripe": (STRIPE | broken(body_of(stripe_event("evt_1")))).map(lambda body: (URL, stripe_headers(body), body)),
    "sendgrid": (SENDGRID | broken(body_of([sendgrid_event("1")]))).map(
        lambda body: (URL, sendgrid_headers(body), body)
    ),
    "sendgrid_inbound": (MAILS | CHARSETS | broken(mail_form(), mail_form(files={"a": b"b"})) | BODIES).map(
        lambda body: (URL, mail_headers(body), body)
    ),
    "twilio": st.dictionaries(
        st.sampled_from(NAMES) | TEXT, st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    ).map(lambda told: signed_for_twilio({**twilio_status(), **told}))
    | OBJECTS.map(lambda told: vouched_by_twilio(body_of({**twilio_inbound(), **told})))
    | BODIES.map(vouched_by_twilio),
    "google": st.dictionaries(st.sampled_from(list(google_headers())), HEADER_VALUES, max_size=3).map(
        lambda changed: (URL, google_headers() | changed, b"")
    ),
    "outlook": (NOTICES | BODIES).map(lambda body: (URL, OF_JSON, body))
    | st.text(st.characters(exclude_categories=["Cs"])).map(
        lambda token: (f"{URL}?validationToken={quote(token)}", {"Content-Type": "text/plain"}, b"")
    ),
}
FORGED = st.tuples(
    st.sampled_from(
        [URL, f"{URL}?validationToken=%ff", f"{URL}?bodySHA256=&bodySHA256=x", "http://[::1]:99999/x", "http://[?a=b"]
    ),
    st.dictionaries(st.sampled_from(HEADER_NAMES), HEADER_VALUES, max_size=8),
    BODIES
    | broken(urlencode(twilio_status()).encode(), mail_form(), body_of({"value": [outlook_change(clientState="x")]})),
)


def outcome(provider: Provider, request: Request) -> list[Event] | int:
    """What is taken, or the status that says no."""
    url, headers, body = request
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    try:
        events = provider.receive(Hook(url, Headers(raw=raw), body)).events
    except RefusedError as refusal:
        assert_secretless(str(refusal))
        return refusal.status
    for event in events:
        stored = event.model_dump_json()
        assert Event.model_validate_json(stored) == event
        assert_secretless(stored)
    return events


def assert_secretless(text: str) -> None:
    assert not [secret for secret in (*WATCH_SECRETS, *PLAIN, NEW) if secret in text]


examples = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", list(GENUINE))
def test_whatever_a_provider_signs_is_taken_or_refused(name: str) -> None:
    @examples
    @given(GENUINE[name])
    def takes_or_refuses(request: Request) -> None:
        assert outcome(PROVIDERS[name], request) != 401 or name in {"google", "outlook"}

    takes_or_refuses()


@pytest.mark.parametrize("name", [*PROVIDERS, "custom"])
def test_whatever_anybody_sends_is_refused(name: str) -> None:
    @examples
    @given(FORGED)
    def refuses(request: Request) -> None:
        for provider in custom() if name == "custom" else [PROVIDERS[name]]:
            assert outcome(provider, request) in ([], 400, 401)  # []: Graph's handshake

    refuses()


@examples
@given(BODIES | OBJECTS.map(body_of), READINGS, st.dictionaries(st.sampled_from(["X-Type", "X-Id"]), HEADER_VALUES))
def test_whatever_a_declared_sender_signs_is_taken_or_refused(
    body: bytes, reading: Reading, more: Mapping[str, str]
) -> None:
    signed = (standard(body, id_="m"), hub(body), {"X-Api-Key": PLAIN[1]})
    for provider, headers in zip(custom(reading), signed, strict=True):
        assert outcome(provider, (URL, {**headers, **more}, body)) != 401


def custom(reading: Reading = Reading()) -> Iterator[Custom]:  # noqa: B008  (frozen)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in VARIABLES.items():
            patch.setenv(name, value)
        made = [
            Custom("a", Standard(type="standard", secrets="${SVIX_SECRETS}", event=reading), SETTINGS),
            Custom(
                "b",
                Hmac(
                    type="hmac",
                    secrets="${PLAIN_SECRETS}",
                    header="X-Hub-Signature-256",
                    prefix="sha256=",
                    event=reading,
                ),
                SETTINGS,
            ),
            Custom("c", ApiKey(type="api_key", secrets="${PLAIN_SECRETS}", event=reading), SETTINGS),
        ]
        for each in made:
            each.prepare()
    yield from made
