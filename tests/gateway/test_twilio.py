"""Twilio's webhooks: it signs the very URL that it calls, and the form behind it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import closing
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from twilio.request_validator import RequestValidator

from events.envelope import Event
from events.sqlite import SqliteEventLog
from gateway.provider import Hook
from gateway.providers.twilio import Twilio
from gateway.refusal import RefusedError
from settings import Settings
from tests.events.strategies import TEXT
from tests.gateway.conftest import Gateway, Serve, serving
from tests.gateway.signing import (
    FORM,
    JSON,
    TWILIO_PATH,
    TWILIO_TOKENS,
    body_of,
    twilio_headers,
    twilio_inbound,
    twilio_status,
)

KEY = f"{TWILIO_PATH}?operation_key=k-1"


def post(
    gateway: Gateway, params: Mapping[str, str], path: str = TWILIO_PATH, *, url: str | None = None, **changed: str
) -> httpx.Response:
    headers = twilio_headers(url or f"http://127.0.0.1:{gateway.port}{path}", params)
    body = urlencode(params).encode()
    return gateway.http.post(path, content=body, headers={**headers, **changed})


def stored(gateway: Gateway) -> list[Event]:
    return [recorded.event for recorded in gateway.log.read(0, 100)]


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A receiver for requests that are refused: they leave nothing behind, so that one is enough."""
    log = SqliteEventLog(tmp_path_factory.mktemp("log") / "events.db")
    with closing(log), serving(log, {}) as served:
        yield served


# --- what is stored ---------------------------------------------------------------------------------------------


def test_a_status_is_stored_with_the_operation_that_sent_the_message(gateway: Gateway) -> None:
    told = twilio_status("undelivered", ErrorCode="30003")

    answer = post(gateway, told, KEY)

    assert (answer.status_code, answer.text) == (200, "<Response/>")
    assert answer.headers["content-type"].startswith("text/xml")
    [event] = stored(gateway)
    assert (event.type, event.aggregate_type, event.aggregate_id) == ("twilio.message.undelivered", "message", "SM1")
    assert event.data == {**told, "operation_key": "k-1"}
    assert (event.metadata.source, event.metadata.dedupe_key) == ("twilio", "SM1/undelivered/30003")


def test_an_inbound_message_is_stored_and_answered_with_nothing(gateway: Gateway) -> None:
    told = twilio_inbound()

    answer = post(gateway, told)

    assert (answer.status_code, answer.text) == (200, "<Response/>")
    [event] = stored(gateway)
    assert (event.type, event.data) == ("twilio.message.received", told)


def test_a_status_that_comes_again_is_stored_once(gateway: Gateway) -> None:
    answers = [post(gateway, twilio_status(status)) for status in ("sent", "sent", "delivered", "sent")]

    assert {answer.status_code for answer in answers} == {200}
    assert [event.metadata.dedupe_key for event in stored(gateway)] == ["SM1/sent", "SM1/delivered"]


def test_json_is_taken_if_its_hash_stands_in_the_url(gateway: Gateway) -> None:
    body = body_of(twilio_status())
    path = f"{TWILIO_PATH}?bodySHA256={hashlib.sha256(body).hexdigest()}"
    headers = twilio_headers(f"http://127.0.0.1:{gateway.port}{path}", {})

    assert gateway.http.post(path, content=body, headers=headers).status_code == 200
    assert gateway.http.post(path, content=body + b" ", headers=headers).status_code == 401
    assert [event.type for event in stored(gateway)] == ["twilio.message.delivered"]


# --- who signed what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", TWILIO_TOKENS)
def test_every_active_token_is_accepted(gateway: Gateway, token: str) -> None:
    params = twilio_status()
    headers = twilio_headers(f"http://127.0.0.1:{gateway.port}{TWILIO_PATH}", params, token)

    assert gateway.http.post(TWILIO_PATH, content=urlencode(params).encode(), headers=headers).status_code == 200


@pytest.mark.parametrize("signed", ["https://hooks.example.com", "https://hooks.example.com:443"])
def test_behind_a_proxy_the_url_is_the_one_that_the_settings_tell(serve: Serve, signed: str) -> None:
    gateway = serve(gateway_url="https://hooks.example.com/")

    assert post(gateway, twilio_status(), KEY, url=f"{signed}{KEY}").status_code == 200
    assert post(gateway, twilio_status(), KEY).status_code == 401


def test_the_url_is_taken_letter_by_letter(gateway: Gateway) -> None:
    path = f"{TWILIO_PATH}?a=%7e&b=x+y&b=%20&%C3%AB"

    assert post(gateway, twilio_status(), path).status_code == 200


def test_a_key_that_is_shared_with_twilio_signs_with_another_algorithm(gateway: Gateway) -> None:
    params, url = twilio_status(), f"http://127.0.0.1:{gateway.port}{TWILIO_PATH}"
    headers = twilio_headers(url, params, algorithm="sha256")
    told = {"X-Twilio-Webhooks-Signature-Settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"}
    body = urlencode(params).encode()

    assert gateway.http.post(TWILIO_PATH, content=body, headers=headers | told).status_code == 200
    assert gateway.http.post(TWILIO_PATH, content=body, headers=headers).status_code == 401


GOOD = twilio_status()
BODY = urlencode(GOOD).encode()
UNKNOWN = {"X-Twilio-Webhooks-Signature-Settings": "algorithm=NONE"}

# what is sent instead of what was signed -> path, headers beside the signature, body, status, reason
FORGED: dict[str, tuple[str, dict[str, str], bytes, int, str]] = {
    "another status": (TWILIO_PATH, FORM, BODY.replace(b"delivered", b"failed"), 401, "no token matched; 2 tried"),
    "a parameter more": (TWILIO_PATH, FORM, BODY + b"&Extra=1", 401, "no token matched"),
    "a parameter twice": (TWILIO_PATH, FORM, BODY + b"&MessageStatus=failed", 401, "no token matched"),
    "a parameter less": (TWILIO_PATH, FORM, BODY.partition(b"&")[2], 401, "no token matched"),
    "another operation": (f"{TWILIO_PATH}?operation_key=other", FORM, BODY, 401, "no token matched"),
    "no body": (TWILIO_PATH, FORM, b"", 401, "no token matched"),
    "JSON without a hash": (TWILIO_PATH, JSON, body_of(GOOD), 401, "bodySHA256"),
    "JSON with another body's hash": (f"{TWILIO_PATH}?bodySHA256={'0' * 64}", JSON, body_of(GOOD), 401, "bodySHA256"),
    "JSON with a hash that is not ASCII": (f"{TWILIO_PATH}?bodySHA256=%C3%AB", JSON, body_of(GOOD), 401, "bodySHA256"),
    "an algorithm that is not known": (TWILIO_PATH, FORM | UNKNOWN, BODY, 400, "algorithm"),
    "not UTF-8": (TWILIO_PATH, FORM, b"Body=\xff", 400, "not UTF-8"),
    "no end of parameters": (TWILIO_PATH, FORM, b"&".join([b"a=1"] * 1001), 400, "not a form"),
    "plain text": (TWILIO_PATH, {"Content-Type": "text/plain"}, BODY, 415, "content type"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FORGED))
def test_what_was_not_signed_is_refused(refusing: Gateway, caplog: pytest.LogCaptureFixture, name: str) -> None:
    path, about, body, status, reason = FORGED[name]
    signature = twilio_headers(f"http://127.0.0.1:{refusing.port}{TWILIO_PATH}", GOOD)["X-Twilio-Signature"]

    answer = refusing.http.post(path, content=body, headers=about | {"X-Twilio-Signature": signature})

    assert answer.status_code == status
    assert refusing.log.head() == 0
    [refusal] = [vars(record) for record in caplog.records if record.name.startswith("gateway")]
    assert reason in refusal["reason"]
    assert not [secret for secret in (*TWILIO_TOKENS, "4155550100") if secret in f"{refusal}{caplog.text}"]


@pytest.mark.parametrize("signature", ["", "no base64", "x" * 5000])
def test_a_signature_that_is_none_is_refused(refusing: Gateway, signature: str) -> None:
    answer = post(refusing, twilio_status(), **{"X-Twilio-Signature": signature})

    assert answer.status_code in {400, 401}
    assert refusing.log.head() == 0


def test_a_request_without_a_signature_is_refused_and_told_how_the_url_is_seen(
    refusing: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    assert refusing.http.post(TWILIO_PATH, content=BODY, headers=FORM).status_code == 401
    post(refusing, twilio_status(), url="https://hooks.example.com/webhooks/twilio")

    hints = [vars(record).get("hint", "") for record in caplog.records]
    assert f"if that is not http://127.0.0.1:{refusing.port}/webhooks/twilio, set PIVOTAL_GATEWAY_URL" in hints[-1]


@pytest.mark.parametrize(
    "told", [{"MessageSid": "SM1"}, {"MessageStatus": "sent"}, {"MessageSid": "", "SmsStatus": "x"}]
)
def test_what_is_not_about_a_message_is_refused(refusing: Gateway, told: dict[str, str]) -> None:
    assert post(refusing, told).status_code == 400
    assert refusing.log.head() == 0


@pytest.mark.parametrize("tokens", [None, " , "])
def test_without_tokens_the_receiver_says_503_and_which_variable_to_set(
    serve: Serve, caplog: pytest.LogCaptureFixture, tokens: str | None
) -> None:
    answer = post(serve(twilio_webhook_tokens=tokens), twilio_status())

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    hints = [vars(record).get("hint") for record in caplog.records if record.levelno == logging.ERROR]
    assert "set PIVOTAL_TWILIO_WEBHOOK_TOKENS" in hints


URLS = st.sampled_from(
    [
        "https://hooks.example.com/webhooks/twilio?operation_key=k",
        "https://hooks.example.com:443/webhooks/twilio",
        "https://hooks.example.com:8443/webhooks/twilio?a=%20b",
        "http://127.0.0.1:8000/webhooks/twilio",
    ]
)


@given(
    URLS, st.dictionaries(TEXT.filter(bool), TEXT, min_size=1, max_size=5), st.sampled_from([*TWILIO_TOKENS, "other"])
)
def test_it_is_as_the_official_sdk_has_it(url: str, params: dict[str, str], token: str) -> None:
    signature = RequestValidator(token).compute_signature(url, params)
    hook = Hook(url, Headers({**FORM, "X-Twilio-Signature": signature}), urlencode(params).encode())
    settings = Settings.model_validate({"twilio_webhook_tokens": ",".join(TWILIO_TOKENS)})

    refused = None
    try:
        Twilio(settings).receive(hook)
    except RefusedError as refusal:
        refused = refusal.status
    taken = refused != 401  # what is taken and is not about a message is 400

    assert taken == any(RequestValidator(each).validate(url, params, signature) for each in TWILIO_TOKENS)
    assert taken == (token in TWILIO_TOKENS)
