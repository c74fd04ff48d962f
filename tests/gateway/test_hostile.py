"""Requests that a receiver on the open Internet gets: none is stored, none is a 500, and the log says why."""

from __future__ import annotations

import base64
import gzip
import http.client
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from events.sqlite import SqliteEventLog
from tests.gateway.conftest import Gateway, Serve, serving
from tests.gateway.signing import (
    JSON,
    STRIPE_SECRETS,
    body_of,
    sendgrid_event,
    sendgrid_headers,
    stripe_event,
    stripe_headers,
    stripe_signature,
)

LIMIT = 10_000
CANARY = "canary-in-the-body"
EVENT = body_of(stripe_event(canary=CANARY))
BATCH = body_of([sendgrid_event(canary=CANARY)])
ZEROS = base64.b64encode(bytes.fromhex("3006020100020100"))
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
SIGNATURE = "Stripe-Signature"
SG_SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
SG_TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"

Headers = Mapping[str, str | bytes | None]


def request(method: str, path: str, headers: Headers, body: bytes) -> bytes:
    """The bytes of a request, with no client's opinion of what is allowed. A header that is None is left out."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: test", b"Content-Length: %d" % len(body)]
    for name, value in headers.items():
        if value is not None:
            lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    return b"\r\n".join([*lines, b"", body])


def stripe(
    body: bytes = EVENT, *, method: str = "POST", path: str = "/webhooks/stripe", **changed: str | bytes | None
) -> bytes:
    """A request that Stripe signed, with some headers changed: `Content_Type=None`."""
    headers = {name.replace("_", "-"): value for name, value in changed.items()}
    return request(method, path, {**stripe_headers(body), **headers}, body)


def stripe_says(signature: str | bytes | None, body: bytes = EVENT) -> bytes:
    """A request with this signature header."""
    return request("POST", "/webhooks/stripe", {**JSON, SIGNATURE: signature}, body)


def stripe_at(age: float) -> bytes:
    return request("POST", "/webhooks/stripe", stripe_headers(EVENT, age=age), EVENT)


def sendgrid(
    body: bytes = BATCH, *, key: ec.EllipticCurvePrivateKey | None = None, age: float = 0, **changed: str | bytes | None
) -> bytes:
    """A request that SendGrid signed, with its `signature` or `timestamp` changed."""
    names = {"signature": SG_SIGNATURE, "timestamp": SG_TIMESTAMP}
    headers = {**(sendgrid_headers(body, key, age=age) if key else sendgrid_headers(body, age=age))}
    return request(
        "POST", "/webhooks/sendgrid", {**headers, **{names[name]: value for name, value in changed.items()}}, body
    )


def signed(body: bytes = EVENT) -> str:
    return stripe_headers(body)[SIGNATURE]


def v1(body: bytes, timestamp: int) -> str:
    return stripe_signature(body, STRIPE_SECRETS[1], timestamp)


NOW = int(time.time())
DEEP = b'{"id":"evt_1","type":"a","x":' + b"[" * 5000 + b"]" * 5000 + b"}"

CASES: dict[str, tuple[Callable[[], bytes], int, str]] = {
    # Stripe: who signed?
    "no signature": (lambda: stripe_says(None), 401, "no Stripe-Signature header"),
    "an empty signature": (lambda: stripe_says(""), 400, "no timestamp"),
    "a garbled signature": (lambda: stripe_says("hello=world;,=,=,"), 400, "no timestamp"),
    "a signature that is not ASCII": (lambda: stripe_says(f"t={NOW},v1=é".encode("latin-1")), 400, "not a signature"),
    "a signature of a megabyte, nearly": (lambda: stripe_says("v1=00," * 9000), 400, "not a signature"),
    "two signature headers": (lambda: stripe_says(f"{signed()}\r\n{SIGNATURE}: {signed()}"), 400, "2 Stripe-Signature"),
    "no timestamp": (lambda: stripe_says(f"v1={v1(EVENT, NOW)}"), 400, "no timestamp"),
    "a timestamp in words": (lambda: stripe_says(f"t=now,v1={v1(EVENT, NOW)}"), 400, "no timestamp"),
    "a negative timestamp": (lambda: stripe_says(f"t=-5,v1={v1(EVENT, -5)}"), 400, "no timestamp"),
    "a timestamp that Python would read": (lambda: stripe_says(f"t=+{NOW},v1={v1(EVENT, NOW)}"), 400, "no timestamp"),
    "a timestamp beyond all time": (lambda: stripe_says(f"t={10**30},v1={v1(EVENT, 10**30)}"), 400, "no timestamp"),
    "a fresh timestamp behind a stale one": (lambda: stripe_says(f"t=9,t={NOW},v1={v1(EVENT, NOW)}"), 401, "no secret"),
    "no signature of scheme v1": (lambda: stripe_says(f"t={NOW},v0={v1(EVENT, NOW)}"), 400, "no v1 signature"),
    "a v1 without a value": (lambda: stripe_says(f"t={NOW},v1="), 401, "no secret matched; 2 tried"),
    "a wrong secret": (lambda: stripe_says(stripe_headers(EVENT, "whsec_x")[SIGNATURE]), 401, "no secret matched"),
    "an empty secret": (lambda: stripe_says(stripe_headers(EVENT, "")[SIGNATURE]), 401, "no secret matched"),
    "a signature cut short": (lambda: stripe_says(signed().partition(",v0")[0][:-1]), 401, "no secret matched"),
    "a signature in capitals": (lambda: stripe_says(f"t={NOW},v1={v1(EVENT, NOW).upper()}"), 401, "no secret matched"),
    "a changed body": (lambda: stripe_says(signed(), EVENT.replace(b"cus_1", b"cus_2")), 401, "no secret matched"),
    "a body with a space more": (lambda: stripe_says(signed(), EVENT + b" "), 401, "no secret matched"),
    "a changed timestamp": (lambda: stripe_says(f"t={NOW - 1},v1={v1(EVENT, NOW)}"), 401, "no secret matched"),
    # Stripe: when?
    "too old": (lambda: stripe_at(412), 401, r"timestamp 41\d s old; 300 s allowed"),
    "replayed a year later": (lambda: stripe_at(365 * 86_400), 401, r"timestamp \d+ s old"),
    "from the future": (lambda: stripe_at(-412), 401, r"timestamp 41\d s in the future"),
    "milliseconds for seconds": (lambda: stripe_says(f"t={NOW}000,v1={v1(EVENT, NOW * 1000)}"), 400, "no timestamp"),
    # Stripe: what?
    "not UTF-8": (lambda: stripe(b'{"id": "\xff"}'), 400, "not UTF-8"),
    "an empty body": (lambda: stripe(b""), 400, "not JSON"),
    "half a body of JSON": (lambda: stripe(EVENT[:-1]), 400, "not JSON"),
    "a byte order mark": (lambda: stripe(b"\xef\xbb\xbf" + EVENT), 400, "not JSON"),
    "JSON that is no object": (lambda: stripe(b"[" + EVENT + b"]"), 400, "not a JSON object"),
    "no id": (lambda: stripe(b'{"type": "a"}'), 400, "no 'id'"),
    "an id that is a number": (lambda: stripe(b'{"id": 7, "type": "a"}'), 400, "no 'id'"),
    "no type": (lambda: stripe(b'{"id": "evt_1"}'), 400, "no 'type'"),
    "not a number": (lambda: stripe(b'{"id": "evt_1", "type": "a", "x": NaN}'), 400, "not JSON"),
    "nested without end": (lambda: stripe(DEEP[:LIMIT]), 400, "not JSON"),
    "half a character, escaped": (lambda: stripe(rb'{"id": "\ud800", "type": "a"}'), 400, "not JSON"),
    "a form": (lambda: stripe(Content_Type="application/x-www-form-urlencoded"), 415, "content type"),
    "text": (lambda: stripe(Content_Type="text/plain"), 415, "content type"),
    "nearly JSON": (lambda: stripe(Content_Type="application/jsonp"), 415, "content type"),
    "no content type": (lambda: stripe(Content_Type=None), 415, "content type"),
    "compressed": (lambda: stripe(gzip.compress(EVENT), Content_Encoding="gzip"), 400, "not UTF-8"),
    "more than the limit": (lambda: stripe(b" " * (LIMIT + 1)), 413, f"more than {LIMIT} bytes"),
    "more than the limit, in chunks": (lambda: chunked(b" " * (LIMIT + 1)), 413, f"more than {LIMIT} bytes"),
    # SendGrid
    "SendGrid: no signature": (lambda: sendgrid(signature=None), 401, f"no {SG_SIGNATURE} header"),
    "SendGrid: no timestamp": (lambda: sendgrid(timestamp=None), 401, f"no {SG_TIMESTAMP} header"),
    "SendGrid: an empty signature": (lambda: sendgrid(signature=""), 401, "no key matched; 2 tried"),
    "SendGrid: a signature that is no base64": (lambda: sendgrid(signature="%%%"), 400, "not base64"),
    "SendGrid: a signature that is no ASN.1": (lambda: sendgrid(signature="bm90IEFTTi4x"), 401, "no key matched"),
    "SendGrid: a signature of zeros": (lambda: sendgrid(signature=ZEROS), 401, "no key matched"),
    "SendGrid: a wrong key": (lambda: sendgrid(key=OTHER_KEY), 401, "no key matched; 2 tried"),
    "SendGrid: a changed timestamp": (lambda: sendgrid(timestamp=str(NOW - 60)), 401, "no key matched"),
    "SendGrid: a timestamp in words": (lambda: sendgrid(timestamp="now"), 400, "no timestamp"),
    "SendGrid: a timestamp that is not ASCII": (lambda: sendgrid(timestamp="\uff11"), 400, "not a signature"),
    "SendGrid: too old": (lambda: sendgrid(age=412), 401, r"timestamp 41\d s old"),
    "SendGrid: from the future": (lambda: sendgrid(age=-412), 401, r"timestamp 41\d s in the future"),
    "SendGrid: not UTF-8": (lambda: sendgrid(b'[{"event": "\xff"}]'), 400, "not UTF-8"),
    "SendGrid: no JSON": (lambda: sendgrid(BATCH[:-1]), 400, "not JSON"),
    "SendGrid: no list": (lambda: sendgrid(BATCH[1:-1]), 400, "not a JSON list"),
    "SendGrid: a list of numbers": (lambda: sendgrid(b"[1, 2]"), 400, "not a JSON list"),
    "SendGrid: one item without an event": (lambda: sendgrid(BATCH[:-1] + b", {}]"), 400, "no 'event'"),
    "Stripe's request at SendGrid's door": (lambda: stripe(path="/webhooks/sendgrid"), 401, f"no {SG_SIGNATURE}"),
    # HTTP
    "GET": (lambda: stripe(method="GET"), 405, "Method Not Allowed"),
    "PUT": (lambda: stripe(method="PUT"), 405, "Method Not Allowed"),
    "DELETE": (lambda: stripe(method="DELETE"), 405, "Method Not Allowed"),
    "OPTIONS": (lambda: stripe(method="OPTIONS"), 405, "Method Not Allowed"),
    "an unknown provider": (lambda: stripe(path="/webhooks/paypal"), 404, "Not Found"),
    "a way around": (lambda: stripe(path="/webhooks/../webhooks/stripe"), 404, "Not Found"),
    "no HTTP": (lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, ""),
    "two lengths": (lambda: stripe(Content_length="3"), 400, ""),
    "a negative length": (lambda: b"POST /webhooks/stripe HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400, ""),
}  # fmt: skip


def chunked(body: bytes) -> bytes:
    headers = request("POST", "/webhooks/stripe", stripe_headers(body), b"").replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    chunks = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    return headers + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    log = SqliteEventLog(tmp_path_factory.mktemp("log") / "events.db")
    with closing(log), serving(log, {"webhook_body_limit": LIMIT}) as served:
        yield served


@pytest.mark.parametrize("name", CASES)
def test_is_refused(gateway: Gateway, caplog: pytest.LogCaptureFixture, name: str) -> None:
    make, status, reason = CASES[name]

    answer, body = exchange(gateway, make())

    assert answer.status == status
    assert gateway.log.head() == 0
    told = [vars(record) for record in caplog.records if record.name.startswith("gateway")]
    if reason:
        [refusal] = told
        assert re.search(reason, refusal["reason"])
        assert refusal["status"] == status
    for secret in (*STRIPE_SECRETS, CANARY):
        assert secret not in f"{told}{caplog.text}{body}"


def exchange(gateway: Gateway, raw: bytes) -> tuple[http.client.HTTPResponse, str]:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(raw)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer, answer.read().decode()


def test_the_requests_that_these_were_made_of_are_stored(serve: Serve) -> None:
    """Else they could be refused for another reason than the one that they are to show."""
    gateway = serve()

    assert [exchange(gateway, raw)[0].status for raw in (stripe(), stripe_at(200), stripe_at(-200), sendgrid())] == [
        200
    ] * 4
    assert exchange(gateway, stripe(Content_Type="Application/JSON; charset=utf-8"))[0].status == 200
    assert exchange(gateway, chunked(EVENT))[0].status == 200


def test_a_body_that_does_not_arrive_in_time_is_408_and_the_connection_ends(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = serve(webhook_body_timeout=0.2)

    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(stripe()[:-1])
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        answer.read()

        assert (answer.status, connection.recv(1)) == (408, b"")
    assert vars(caplog.records[-1])["reason"] == "the body did not arrive within 0.2 s"
    assert gateway.log.head() == 0


def test_a_sender_that_goes_away_stores_nothing(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(stripe()[:-1])

    while not any("the sender went away" in vars(record).get("reason", "") for record in caplog.records):
        time.sleep(0.01)
    assert gateway.log.head() == 0


def test_trouble_with_one_request_does_not_touch_the_next_on_the_connection(serve: Serve) -> None:
    gateway = serve()
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        statuses = []
        for raw in (stripe_says("garbage"), stripe(), stripe(b"{}"), sendgrid()):
            connection.sendall(raw)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            answer.read()
            statuses.append(answer.status)

    assert statuses == [400, 200, 400, 200]
