"""Mails that came in, as SendGrid's inbound parse posts them."""

from __future__ import annotations

import base64
import hashlib
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from email import message_from_string
from email.policy import default

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from sendgrid.helpers.eventwebhook import EventWebhook
from starlette.datastructures import Headers

from cli.serve import deliver_webhooks
from events.envelope import Event
from events.sqlite import SqliteEventLog
from gateway.provider import Hook
from gateway.providers.sendgrid_signature import Signature
from gateway.refusal import RefusedError
from sandbox.app import Sandbox
from sandbox.serve import running
from tests.events.strategies import TEXT
from tests.gateway.conftest import Gateway, Serve, serving
from tests.gateway.raw import request
from tests.gateway.signing import (
    INBOUND_KEYS,
    JSON,
    MAIL,
    MULTIPART,
    body_of,
    mail_form,
    mail_headers,
    public_base64,
    sendgrid_headers,
)

PATH = "/webhooks/sendgrid/inbound"
PASSWORDS = ("the-password-of-old", "the:password:of-now")
OTHER_KEY = generate_private_key(SECP256R1())


def post(gateway: Gateway, body: bytes, headers: Mapping[str, str] | None = None) -> httpx.Response:
    return gateway.http.post(PATH, content=body, headers=headers or mail_headers(body))


def stored(gateway: Gateway) -> list[Event]:
    return [recorded.event for recorded in gateway.log.read(0, 100)]


def landed(gateway: Gateway, form: bytes) -> list[Event]:
    """What this mail alone came to."""
    before = gateway.log.head()
    assert post(gateway, form).status_code == 200
    return [recorded.event for recorded in gateway.log.read(before, 10)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A receiver for many tests: to start one for each takes longer than they do."""
    log = SqliteEventLog(tmp_path_factory.mktemp("log") / "events.db")
    with closing(log), serving(log, {"sendgrid_inbound_limit": 10_000}) as served:
        yield served


# --- what is stored --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", INBOUND_KEYS)
def test_a_mail_is_stored_with_its_fields_and_its_attachments(gateway: Gateway, key: EllipticCurvePrivateKey) -> None:
    pdf = b"%PDF-1.7 \x00\xff"
    body = mail_form(files={"Grüße.pdf": pdf})

    answer = post(gateway, body, mail_headers(body, key))

    assert (answer.status_code, answer.json()) == (200, {"received": 1, "new": 1})
    [event] = stored(gateway)
    assert (event.type, event.aggregate_type, event.metadata.source) == (
        "sendgrid.inbound.received",
        "mail",
        "sendgrid",
    )
    assert event.aggregate_id == event.metadata.dedupe_key
    fields = event.data["fields"]
    assert (fields["subject"], fields["text"], fields["from"]) == ("Grüße", "Schöne Grüße", "Zoë <zoe@example.com>")
    assert fields["envelope"] == {"to": ["in@parse.example.com"], "from": "zoe@example.com"}
    assert set(fields) == set(MAIL)
    assert event.data["files"] == [
        {
            "name": "attachment1",
            "filename": "Grüße.pdf",
            "type": "application/pdf",
            "size": len(pdf),
            "sha256": hashlib.sha256(pdf).hexdigest(),
            "content": base64.b64encode(pdf).decode(),
        }
    ]
    assert "damaged" not in event.data


def test_a_raw_mail_is_stored_whole_whatever_its_bytes(gateway: Gateway) -> None:
    raw = b"Subject: x\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe9\xff"

    assert post(gateway, mail_form({"email": raw, "to": b"in@parse.example.com"})).status_code == 200

    [event] = stored(gateway)
    assert base64.b64decode(event.data["damaged"]["email"]) == raw
    assert event.data["fields"]["email"].startswith("Subject: x\r\n")


def test_of_an_attachment_above_the_limit_the_event_holds_its_digest(serve: Serve) -> None:
    gateway = serve(sendgrid_attachment_limit=3)

    assert post(gateway, mail_form(files={"a": b"123", "b": b"1234"})).status_code == 200

    [event] = stored(gateway)
    small, large = event.data["files"]
    assert base64.b64decode(small["content"]) == b"123"
    assert "content" not in large
    assert (large["size"], large["sha256"]) == (4, hashlib.sha256(b"1234").hexdigest())


def test_a_mail_that_comes_again_is_stored_once_and_one_with_the_same_message_id_twice(gateway: Gateway) -> None:
    backwards = dict(reversed(MAIL.items()))
    for fields in (MAIL, MAIL, backwards, MAIL | {"to": b"other@parse.example.com"}):
        assert post(gateway, mail_form(fields)).status_code == 200

    assert len(stored(gateway)) == 2


def test_a_mail_may_be_larger_than_other_webhooks(serve: Serve) -> None:
    gateway = serve(webhook_body_limit=1000, sendgrid_inbound_limit=5_000_000)
    picture = bytes(range(256)) * 10_000

    assert post(gateway, mail_form(files={"a": picture})).status_code == 200
    assert stored(gateway)[0].data["files"][0]["size"] == len(picture)


def test_only_some_large_mails_are_in_memory_at_a_time(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """More of them hear 503, and come again; small ones are taken meanwhile."""
    gateway = serve(webhook_body_limit=4000)
    body = mail_form(files={"a": b"x" * 5000})
    head, rest = (whole := request("POST", PATH, mail_headers(body), body))[:-10], whole[-10:]
    with ExitStack() as stack:

        def begin() -> socket.socket:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=30))
            connection.sendall(head)
            return connection

        slow = [begin() for _ in range(4)]
        while post(gateway, body).status_code != 503:  # it may have come before one of the slow ones
            answered, _, _ = select.select(slow, [], [], 0)
            slow = [begin() if each in answered else each for each in slow]
        assert post(gateway, mail_form()).status_code == 200
        for each in slow:
            each.sendall(rest)
            assert each.recv(12) == b"HTTP/1.1 200"
    assert post(gateway, body).status_code == 200
    told = {vars(record).get("reason") for record in caplog.records}
    assert "4 bodies of more than 4000 bytes are being received" in told


def test_who_only_says_that_much_will_come_keeps_no_large_mail_out(serve: Serve) -> None:
    gateway = serve(webhook_body_limit=4000)
    body = mail_form(files={"a": b"x" * 5000})
    asks = request("POST", PATH, MULTIPART | {"Content-Length": "30000000", "Expect": "100-continue"})
    with ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), timeout=30))
            connection.sendall(asks)
            assert connection.recv(12) == b"HTTP/1.1 100"  # its body is waited for
            connection.sendall(body[:1000])
        assert post(gateway, body).status_code == 200


CHARSETS: dict[str, tuple[bytes, str, str, bool]] = {
    # what SendGrid says of the text -> what is read, and whether all of it is
    "another charset": ("日本".encode("shift_jis"), "Shift_JIS", "日本", True),
    "UTF-16": ("é".encode("utf-16"), "utf-16", "é", True),
    "one that is none": ("é".encode(), "no-such", "é", True),
    "one that is no name": ("é".encode(), "../é\x00", "é", True),
    "one that runs": (rb"\ud800", "unicode_escape", r"\ud800", True),
    "one that is no text": (b"eA==", "base64", "eA==", True),
    "a number": ("é".encode(), "7", "é", True),
    "half a character": (b"a +2AA- b", "utf-7", "a +2AA- b", False),
    "the wrong one": (b"\xe9", "ascii", "\ufffd", False),
}


@pytest.mark.parametrize("name", list(CHARSETS))
def test_text_is_read_by_the_charset_that_sendgrid_names(shared: Gateway, name: str) -> None:
    raw, charset, text, whole = CHARSETS[name]
    form = mail_form({"text": raw, "charsets": body_of({"text": charset, "html": 7})})

    [event] = landed(shared, form)
    assert event.data["fields"]["text"] == text
    assert ("damaged" not in event.data) == whole


@pytest.mark.parametrize("charsets", [b"", b"[]", b"7", b"{", b"\xff", b'{"text": null}'])
def test_charsets_that_cannot_be_read_do_not_lose_the_mail(shared: Gateway, charsets: bytes) -> None:
    [event] = landed(shared, mail_form({"text": "é".encode(), "charsets": charsets}))
    assert event.data["fields"]["text"] == "é"


@pytest.mark.parametrize("raw", [False, True])
def test_a_mail_from_outside_goes_through_the_sandbox_to_the_log(serve: Serve, raw: bool) -> None:
    played = Sandbox()
    gateway = serve(sendgrid_inbound_keys=played.sendgrid_signer.public_key)
    deliver_webhooks(played, f"http://127.0.0.1:{gateway.port}")
    with running(played) as served:
        mail = {"sender": "zoe@example.com", "subject": "Grüße", "text": "Schöne Grüße", "raw": raw}
        httpx.post(f"{served.url}/_sandbox/sendgrid/inbound", json=mail).raise_for_status()
        while not gateway.log.head():
            time.sleep(0.02)

    [event] = stored(gateway)
    fields = event.data["fields"]
    assert (fields["from"], fields["subject"]) == ("zoe@example.com", "Grüße")
    assert fields["envelope"]["to"] == ["in@parse.example.com"]
    text = message_from_string(fields["email"], policy=default).get_content() if raw else fields["text"]
    assert text.strip() == "Schöne Grüße"


# --- what is refused -------------------------------------------------------------------------------------------------

FORM = mail_form()
UNFIT: dict[str, tuple[Callable[[], dict[str, str]], bytes, int, str]] = {
    "no signature": (lambda: MULTIPART, FORM, 401, "no X-Twilio-Email-Event-Webhook-Signature header"),
    "another key": (lambda: mail_headers(FORM, OTHER_KEY), FORM, 401, "no key matched; 2 tried"),
    "a changed body": (lambda: mail_headers(FORM), FORM.replace(b"zoe", b"eve"), 401, "no key matched"),
    "too old": (lambda: mail_headers(FORM, age=412), FORM, 401, "s old; 300 s allowed"),
    "from the future": (lambda: mail_headers(FORM, age=-412), FORM, 401, "s in the future"),
    "a password instead": (lambda: {**MULTIPART, "Authorization": "Basic eDp5"}, FORM, 401, "no X-Twilio"),
    "JSON": (lambda: sendgrid_headers(FORM, INBOUND_KEYS[0]) | JSON, FORM, 415, "content type"),
    "no boundary": (lambda: {**mail_headers(FORM), "Content-Type": "multipart/form-data"}, FORM, 400, "not a form"),
    "half a form": (lambda: mail_headers(FORM[:-9]), FORM[:-9], 400, "not a form"),
    "no form": (lambda: mail_headers(b"x"), b"x", 400, "not a form"),
    "nothing": (lambda: mail_headers(b""), b"", 400, "not a form"),
    "an empty form": (lambda: mail_headers(b"--xYzZY--"), b"--xYzZY--", 400, "the form is empty"),
    "more than the limit": (lambda: mail_headers(b"x" * 10_001), b"x" * 10_001, 413, "more than 10000 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(UNFIT))
def test_what_sendgrid_did_not_post_is_refused(shared: Gateway, caplog: pytest.LogCaptureFixture, name: str) -> None:
    headers, body, status, reason = UNFIT[name]
    before = shared.log.head()

    assert post(shared, body, headers()).status_code == status
    assert shared.log.head() == before
    [told] = [vars(record) for record in caplog.records if record.name.startswith("gateway")]
    assert reason in told["reason"]
    assert "example.com" not in f"{told}{caplog.text}"


def test_parts_without_end_are_refused(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    body = mail_form({str(number): b"" for number in range(1001)})

    assert post(serve(), body).status_code == 400
    assert "segment count" in vars(caplog.records[-1])["reason"]


# --- without a signature: a password in the URL ----------------------------------------------------------------------


def basic(credentials: str) -> dict[str, str]:
    return {**MULTIPART, "Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


def test_without_keys_the_password_of_the_url_is_asked_for(serve: Serve) -> None:
    gateway = serve(sendgrid_inbound_keys=None, sendgrid_inbound_secrets=" , ".join(PASSWORDS))

    answers = {
        headers.get("Authorization"): post(gateway, mail_form({"to": name.encode()}), headers).status_code
        for name, headers in {
            "old": basic(f"sendgrid:{PASSWORDS[0]}"),
            "new": basic(f"anybody:{PASSWORDS[1]}"),
            "wrong": basic("sendgrid:wrong"),
            "empty": basic("sendgrid:"),
            "no colon": basic(PASSWORDS[0]),
            "no base64": {**MULTIPART, "Authorization": "Basic %%%"},
            "no text": {**MULTIPART, "Authorization": "Basic /////w=="},
            "another scheme": {**MULTIPART, "Authorization": f"Bearer {PASSWORDS[0]}"},
            "none": MULTIPART,
        }.items()
    }

    assert list(answers.values()) == [200, 200, 401, 401, 400, 400, 400, 400, 401]
    assert len(stored(gateway)) == 2
    assert not [secret for secret in PASSWORDS if secret in str([event.data for event in stored(gateway)])]


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"sendgrid_inbound_keys": None}, "set PIVOTAL_SENDGRID_INBOUND_KEYS or PIVOTAL_SENDGRID_INBOUND_SECRETS"),
        ({"sendgrid_inbound_keys": " , "}, "set PIVOTAL_SENDGRID_INBOUND_KEYS or PIVOTAL_SENDGRID_INBOUND_SECRETS"),
        ({"sendgrid_inbound_keys": "bm90IGEga2V5"}, "copy the verification key from SendGrid"),
    ],
)
def test_without_a_key_or_a_password_the_receiver_says_503_and_which_variable_to_set(
    serve: Serve, caplog: pytest.LogCaptureFixture, changes: Mapping[str, object], hint: str
) -> None:
    answer = post(serve(**changes), FORM)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert any(hint in vars(record).get("hint", "") for record in caplog.records)


@settings(deadline=None)
@given(TEXT, st.sampled_from([*INBOUND_KEYS, OTHER_KEY]), st.booleans())
def test_a_signature_is_as_the_official_sdk_has_it(body: str, key: EllipticCurvePrivateKey, changed: bool) -> None:
    headers = sendgrid_headers(body.encode(), key)
    body += "x" * changed
    names = ("X-Twilio-Email-Event-Webhook-Signature", "X-Twilio-Email-Event-Webhook-Timestamp")
    signature, timestamp = (headers[name] for name in names)
    keys = [public_base64(each) for each in INBOUND_KEYS]
    theirs = any(EventWebhook(each).verify_signature(body, signature, timestamp) for each in keys)

    try:
        Signature("KEYS", ",".join(keys), "there", 300).check(Hook("https://x", Headers(headers), body.encode()))
        ours = True
    except RefusedError:
        ours = False

    assert ours == theirs == (key is not OTHER_KEY and not changed)
