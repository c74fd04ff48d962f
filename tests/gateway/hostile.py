"""The table of requests that no receiver may take: for each, what is sent, the status, and the reason in the log."""

from __future__ import annotations

import base64
import gzip
import hmac
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import urlencode

from cryptography.hazmat.primitives.asymmetric import ec

from tests.gateway.raw import Headers, chunked, request, stripe
from tests.gateway.signing import (
    FORM,
    JSON,
    MULTIPART,
    STRIPE_SECRETS,
    TWILIO_PATH,
    body_of,
    mail_form,
    mail_headers,
    sendgrid_event,
    sendgrid_headers,
    stripe_event,
    stripe_headers,
    stripe_signature,
    twilio_headers,
    twilio_status,
)

BODY_LIMIT = 10_000
TIMEOUT = 1.5
WATCH_SECRET = "the-secret-of-the-watch"
CANARY = "canary-in-the-body"
"""Stands in every body: what a sender sent is not for the log."""

EVENT = body_of(stripe_event(canary=CANARY))
BATCH = body_of([sendgrid_event(canary=CANARY)])
STATUS = twilio_status(Body=CANARY)
NOTICE = {"subscriptionId": "sub-1", "changeType": "updated", "clientState": WATCH_SECRET, "resource": CANARY}

MAIL = mail_form({"subject": CANARY.encode()})
HUB_SECRET = "the-secret-of-the-hub"
DECLARED = """
hub: {type: hmac, secrets: "${HUB_SECRETS}", header: X-Hub-Signature-256, prefix: "sha256="}
tools: {type: api_key, secrets: "${HUB_SECRETS}"}
"""
"""`webhooks.yaml`."""

ZEROS = base64.b64encode(bytes.fromhex("3006020100020100"))
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
SIGNATURE = "Stripe-Signature"
SG_SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
SG_TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"
TW_SIGNATURE = "X-Twilio-Signature"
TEXT = {"Content-Type": "text/plain"}
NOW = int(time.time())
ENDLESS, MINUS = b'{"a": 1e400}', b'{"a": [-%s.5]}' % (b"9" * 400)
NEARLY_TOO_DEEP = b'{"id":"evt_1","type":"a","x":' + b"[" * 200 + b"]" * 200 + b"}"
DEEP = b'{"id":"evt_1","type":"a","x":' + b"[" * 5000 + b"]" * 5000 + b"}"


class Case(NamedTuple):
    """A request and what becomes of it.

    Args:
        make: Its bytes, made when they are sent: signatures are fresh.
        status: What it is answered.
        reason: A pattern of the reason in the log.
    """

    make: Callable[[], bytes]
    status: int
    reason: str


# --- how requests are made --------------------------------------------------------------------------------------


def says(signature: str | bytes | None, body: bytes = EVENT) -> bytes:
    """A request to Stripe's address with this signature."""
    return request("POST", "/webhooks/stripe", {**JSON, SIGNATURE: signature}, body)


def sent(age: float) -> bytes:
    """A request that Stripe signed so many seconds ago."""
    return request("POST", "/webhooks/stripe", stripe_headers(EVENT, age=age), EVENT)


def signed(body: bytes = EVENT) -> str:
    return stripe_headers(body)[SIGNATURE]


def v1(timestamp: int = NOW) -> str:
    return stripe_signature(EVENT, STRIPE_SECRETS[1], timestamp)


def sendgrid(
    body: bytes = BATCH, *, key: ec.EllipticCurvePrivateKey | None = None, age: float = 0, **changed: str | bytes | None
) -> bytes:
    """A request that SendGrid signed, with its `signature` or `timestamp` changed."""
    names = {"signature": SG_SIGNATURE, "timestamp": SG_TIMESTAMP}
    headers = sendgrid_headers(body, key, age=age) if key else sendgrid_headers(body, age=age)
    return request(
        "POST", "/webhooks/sendgrid", {**headers, **{names[name]: value for name, value in changed.items()}}, body
    )


def twilio(
    told: Mapping[str, str] = STATUS,
    *,
    url: str = f"http://test{TWILIO_PATH}",
    body: bytes | None = None,
    **changed: str,
) -> bytes:
    """A request that Twilio signed for this URL, sent to its address; perhaps with another body."""
    headers = {**twilio_headers(url, told), **{name.replace("_", "-"): value for name, value in changed.items()}}
    return request("POST", TWILIO_PATH, headers, urlencode(told).encode() if body is None else body)


def twilio_json(body: bytes, told: str) -> bytes:
    """JSON whose hash, as the URL tells it, is signed."""
    path = f"{TWILIO_PATH}?bodySHA256={told}"
    return request("POST", path, twilio_headers(f"http://test{path}", {}), body)


def google(**changed: str | None) -> bytes:
    """A notification of Google's, with some of its headers changed."""
    headers: dict[str, str | bytes | None] = {
        "X-Goog-Channel-Token": WATCH_SECRET, "X-Goog-Channel-ID": "c-1", "X-Goog-Message-Number": "2",
        "X-Goog-Resource-State": "exists", "X-Goog-Resource-ID": CANARY,
    }  # fmt: skip
    return request(
        "POST", "/webhooks/google", headers | {name.replace("_", "-"): value for name, value in changed.items()}
    )


def outlook(told: object, path: str = "/webhooks/outlook", headers: Headers = JSON) -> bytes:
    """What Graph would send."""
    return request("POST", path, headers, told if isinstance(told, bytes) else body_of(told))


def notice(**changed: object) -> bytes:
    """One notification of Graph's, changed."""
    return outlook({"value": [{**NOTICE, **changed}]})


def inbound(body: bytes = MAIL, changed: Headers | None = None) -> bytes:
    """A mail that SendGrid posted, signed, with some headers changed."""
    return request("POST", "/webhooks/sendgrid/inbound", {**mail_headers(body), **(changed or {})}, body)


def custom(body: bytes = b"{}", *, sender: str = "hub", **headers: str) -> bytes:
    """A request to a sender that `webhooks.yaml` declares."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return request("POST", f"/webhooks/custom/{sender}", {**JSON, **named}, body)


def hub(body: bytes, key: str = HUB_SECRET) -> str:
    return "sha256=" + hmac.digest(key.encode(), body, "sha256").hex()


def head(*lines: bytes, method: bytes = b"POST", version: bytes = b"1.1", body: bytes = EVENT) -> bytes:
    """A request that Stripe signed, whose framing is all in these lines."""
    told = [f"{name}: {value}".encode() for name, value in stripe_headers(body).items()]
    return b"\r\n".join([b"%s /webhooks/stripe HTTP/%s" % (method, version), *told, *lines, b"", body])


def pieces(*lines: bytes) -> bytes:
    """The same, with its body in chunks."""
    return head(HOST, *lines, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(EVENT), EVENT))


HOST = b"Host: test"
LENGTH = b"Content-Length: %d" % len(EVENT)
CHUNKED = b"Transfer-Encoding: chunked"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: "

# --- the table --------------------------------------------------------------------------------------------------

STRIPE = {
    # who signed?
    "no signature": Case(lambda: says(None), 401, "no Stripe-Signature header"),
    "an empty signature": Case(lambda: says(""), 400, "no timestamp"),
    "a garbled signature": Case(lambda: says("hello=world;,=,=,"), 400, "no timestamp"),
    "a signature that is not ASCII": Case(lambda: says(f"t={NOW},v1=é".encode("latin-1")), 400, "not a signature"),
    "a signature of many kilobytes": Case(lambda: says("v1=00," * 2000), 400, "not a signature"),
    "two signature headers": Case(lambda: says(f"{signed()}\r\n{SIGNATURE}: {signed()}"), 400, "2 Stripe-Signature"),
    "no timestamp": Case(lambda: says(f"v1={v1()}"), 400, "no timestamp"),
    "a timestamp in words": Case(lambda: says(f"t=now,v1={v1()}"), 400, "no timestamp"),
    "a negative timestamp": Case(lambda: says(f"t=-5,v1={v1(-5)}"), 400, "no timestamp"),
    "a timestamp that Python would read": Case(lambda: says(f"t=+{NOW},v1={v1()}"), 400, "no timestamp"),
    "a timestamp beyond all time": Case(lambda: says(f"t={10**30},v1={v1(10**30)}"), 400, "no timestamp"),
    "a fresh timestamp behind a stale one": Case(lambda: says(f"t=9,t={NOW},v1={v1()}"), 401, "no secret"),
    "no signature of scheme v1": Case(lambda: says(f"t={NOW},v0={v1()}"), 400, "no v1 signature"),
    "a v1 without a value": Case(lambda: says(f"t={NOW},v1="), 401, "no secret matched; 2 tried"),
    "a wrong secret": Case(lambda: says(stripe_headers(EVENT, "whsec_x")[SIGNATURE]), 401, "no secret matched"),
    "an empty secret": Case(lambda: says(stripe_headers(EVENT, "")[SIGNATURE]), 401, "no secret matched"),
    "a signature cut short": Case(lambda: says(signed().partition(",v0")[0][:-1]), 401, "no secret matched"),
    "a signature in capitals": Case(lambda: says(f"t={NOW},v1={v1().upper()}"), 401, "no secret matched"),
    "a changed body": Case(lambda: says(signed(), EVENT.replace(b"cus_1", b"cus_2")), 401, "no secret matched"),
    "a body with a space more": Case(lambda: says(signed(), EVENT + b" "), 401, "no secret matched"),
    "a changed timestamp": Case(lambda: says(f"t={NOW - 1},v1={v1()}"), 401, "no secret matched"),
    # when?
    "too old": Case(lambda: sent(412), 401, r"timestamp 41\d s old; 300 s allowed"),
    "replayed a year later": Case(lambda: sent(365 * 86_400), 401, r"timestamp \d+ s old"),
    "from the future": Case(lambda: sent(-412), 401, r"timestamp 41\d s in the future"),
    "milliseconds for seconds": Case(lambda: says(f"t={NOW}000,v1={v1(NOW * 1000)}"), 400, "no timestamp"),
    # what?
    "not UTF-8": Case(lambda: stripe(b'{"id": "\xff"}'), 400, "not UTF-8"),
    "an empty body": Case(lambda: stripe(b""), 400, "not JSON"),
    "half a body of JSON": Case(lambda: stripe(EVENT[:-1]), 400, "not JSON"),
    "a byte order mark": Case(lambda: stripe(b"\xef\xbb\xbf" + EVENT), 400, "not JSON"),
    "JSON that is no object": Case(lambda: stripe(b"[" + EVENT + b"]"), 400, "not a JSON object"),
    "no id": Case(lambda: stripe(b'{"type": "a"}'), 400, "no 'id'"),
    "an id that is a number": Case(lambda: stripe(b'{"id": 7, "type": "a"}'), 400, "no 'id'"),
    "no type": Case(lambda: stripe(b'{"id": "evt_1"}'), 400, "no 'type'"),
    "not a number": Case(lambda: stripe(b'{"id": "evt_1", "type": "a", "x": NaN}'), 400, "not JSON"),
    "nested without end": Case(lambda: stripe(DEEP[:BODY_LIMIT]), 400, "not JSON"),
    "nested a level too deep to be kept": Case(lambda: stripe(NEARLY_TOO_DEEP), 400, "nested too deep"),
    "half a character, escaped": Case(lambda: stripe(rb'{"id": "\ud800", "type": "a"}'), 400, "not JSON"),
    "a form": Case(lambda: stripe(EVENT, Content_Type="application/x-www-form-urlencoded"), 415, "content type"),
    "text": Case(lambda: stripe(EVENT, Content_Type="text/plain"), 415, "content type"),
    "nearly JSON": Case(lambda: stripe(EVENT, Content_Type="application/jsonp"), 415, "content type"),
    "no content type": Case(lambda: stripe(EVENT, Content_Type=None), 415, "content type"),
    "compressed": Case(lambda: stripe(gzip.compress(EVENT), Content_Encoding="gzip"), 400, "not UTF-8"),
    "more than the limit": Case(lambda: stripe(b" " * (BODY_LIMIT + 1)), 413, f"more than {BODY_LIMIT} bytes"),
    "more than the limit, in chunks": Case(lambda: chunked(b" " * (BODY_LIMIT + 1)), 413, "more than"),
}  # fmt: skip

SENDGRID = {
    "no signature": Case(lambda: sendgrid(signature=None), 401, f"no {SG_SIGNATURE} header"),
    "no timestamp": Case(lambda: sendgrid(timestamp=None), 401, f"no {SG_TIMESTAMP} header"),
    "an empty signature": Case(lambda: sendgrid(signature=""), 401, "no key matched; 2 tried"),
    "a signature that is no base64": Case(lambda: sendgrid(signature="%%%"), 400, "not base64"),
    "a signature that is no ASN.1": Case(lambda: sendgrid(signature="bm90IEFTTi4x"), 401, "no key matched"),
    "a signature of zeros": Case(lambda: sendgrid(signature=ZEROS), 401, "no key matched"),
    "a wrong key": Case(lambda: sendgrid(key=OTHER_KEY), 401, "no key matched; 2 tried"),
    "a changed timestamp": Case(lambda: sendgrid(timestamp=str(NOW - 60)), 401, "no key matched"),
    "a timestamp in words": Case(lambda: sendgrid(timestamp="now"), 400, "no timestamp"),
    "a timestamp that is not ASCII": Case(lambda: sendgrid(timestamp="\uff11"), 400, "not a signature"),
    "too old": Case(lambda: sendgrid(age=412), 401, r"timestamp 41\d s old"),
    "from the future": Case(lambda: sendgrid(age=-412), 401, r"timestamp 41\d s in the future"),
    "not UTF-8": Case(lambda: sendgrid(b'[{"event": "\xff"}]'), 400, "not UTF-8"),
    "no JSON": Case(lambda: sendgrid(BATCH[:-1]), 400, "not JSON"),
    "no list": Case(lambda: sendgrid(BATCH[1:-1]), 400, "not a JSON list"),
    "a list of numbers": Case(lambda: sendgrid(b"[1, 2]"), 400, "not a JSON list"),
    "one item without an event": Case(lambda: sendgrid(BATCH[:-1] + b", {}]"), 400, "no 'event'"),
    "Stripe's request": Case(lambda: stripe(EVENT, path="/webhooks/sendgrid"), 401, f"no {SG_SIGNATURE}"),
}

TWILIO = {
    "no signature": Case(lambda: request("POST", TWILIO_PATH, FORM, b"MessageSid=SM1"), 401, f"no {TW_SIGNATURE}"),
    "a garbled signature": Case(lambda: twilio(X_Twilio_Signature="%%%"), 401, "no token matched; 2 tried"),
    "a signature that is not ASCII": Case(lambda: twilio(X_Twilio_Signature="é"), 400, "not a signature"),
    "signed for another address": Case(lambda: twilio(url="http://test/webhooks/other"), 401, "no token matched"),
    "signed for another host": Case(lambda: twilio(url=f"http://evil{TWILIO_PATH}"), 401, "no token matched"),
    "a parameter more": Case(lambda: twilio(body=urlencode({**STATUS, "A": "b"}).encode()), 401, "no token matched"),
    "a parameter less": Case(lambda: twilio(body=b"MessageSid=SM1"), 401, "no token matched"),
    "no parameters": Case(lambda: twilio(body=b""), 401, "no token matched"),
    "an algorithm that is not known": Case(
        lambda: twilio(X_Twilio_Webhooks_Signature_Settings="algorithm=NONE"), 400, "algorithm"
    ),
    "not UTF-8": Case(lambda: twilio(body=b"MessageSid=\xff"), 400, "not UTF-8"),
    "too many parameters": Case(lambda: twilio(body=b"&".join([b"a=b"] * 1001)), 400, "not a form"),
    "JSON that the URL does not tell": Case(lambda: twilio_json(body_of(STATUS), "0" * 64), 401, "bodySHA256"),
    "JSON without a hash": Case(lambda: twilio_json(body_of(STATUS), ""), 401, "bodySHA256"),
    "a list for an object": Case(lambda: twilio_json(b"[]", sha256(b"[]").hexdigest()), 400, "not a JSON object"),
    "about no message": Case(lambda: twilio({"CallSid": "CA1"}), 400, "no 'MessageSid'"),
    "text": Case(lambda: twilio(Content_Type="text/plain"), 415, "content type"),
}  # fmt: skip

GOOGLE = {
    "no token": Case(lambda: google(X_Goog_Channel_Token=None), 401, "no X-Goog-Channel-Token header"),
    "a wrong token": Case(lambda: google(X_Goog_Channel_Token="guessed"), 401, "no secret matched"),
    "an empty token": Case(lambda: google(X_Goog_Channel_Token=""), 401, "no secret matched"),
    "the token's beginning": Case(lambda: google(X_Goog_Channel_Token=WATCH_SECRET[:-1]), 401, "no secret matched"),
    "two tokens": Case(
        lambda: google(X_Goog_Channel_Token=f"{WATCH_SECRET}\r\nX-Goog-Channel-Token: {WATCH_SECRET}"), 400, "2 X-Goog"
    ),
    "no channel": Case(lambda: google(X_Goog_Channel_ID=None), 400, "no X-Goog-Channel-ID header"),
    "a number that is none": Case(lambda: google(X_Goog_Message_Number="two"), 400, "not a number"),
}

OUTLOOK = {
    "no secret": Case(lambda: notice(clientState=None), 401, "matched no secret"),
    "a wrong secret": Case(lambda: notice(clientState="guessed"), 401, "matched no secret"),
    "a secret that is no text": Case(lambda: notice(clientState=[WATCH_SECRET]), 401, "secret"),
    "no notifications": Case(lambda: outlook({"value": []}), 400, "no notifications"),
    "notifications that are none": Case(lambda: outlook({"value": ["x", 7, None]}), 401, "matched no secret"),
    "no subscription": Case(lambda: outlook({"value": [{"clientState": WATCH_SECRET}]}), 400, "no 'subscriptionId'"),
    "no JSON": Case(lambda: outlook(b"value"), 400, "not JSON"),
    "a form": Case(lambda: outlook(b"value=1", headers=FORM), 415, "content type"),
    "a handshake that would run in a browser": Case(
        lambda: outlook(b"", "/webhooks/outlook?validationToken=%3Cscript%3E", TEXT), 400, "none of"
    ),
}  # fmt: skip

INBOUND = {
    "no signature": Case(lambda: inbound(changed={SG_SIGNATURE: None}), 401, f"no {SG_SIGNATURE} header"),
    "the event webhook's key": Case(lambda: inbound(changed=sendgrid_headers(MAIL) | MULTIPART), 401, "no key"),
    "too old": Case(lambda: inbound(changed=mail_headers(MAIL, age=412)), 401, r"timestamp 41\d s old"),
    "from the future": Case(
        lambda: inbound(changed=mail_headers(MAIL, age=-412)), 401, r"timestamp 41\d s in the future"
    ),
    "half a form": Case(lambda: inbound(MAIL[:-9]), 400, "not a form"),
    "no form": Case(lambda: inbound(b"x"), 400, "not a form"),
    "JSON": Case(lambda: inbound(changed=JSON), 415, "content type"),
}

CUSTOM = {
    "a sender that is not declared": Case(lambda: custom(sender="other"), 404, "Not Found"),
    "no signature": Case(custom, 401, "no X-Hub-Signature-256 header"),
    "a signature without its prefix": Case(lambda: custom(X_Hub_Signature_256="ab"), 400, "does not start with"),
    "a wrong secret": Case(lambda: custom(X_Hub_Signature_256=hub(b"{}", "guessed")), 401, "no secret matched"),
    "a changed body": Case(lambda: custom(b"{ }", X_Hub_Signature_256=hub(b"{}")), 401, "no secret matched"),
    "no JSON": Case(lambda: custom(b"{", X_Hub_Signature_256=hub(b"{")), 400, "not JSON"),
    "a number beyond all measure": Case(lambda: custom(ENDLESS, X_Hub_Signature_256=hub(ENDLESS)), 400, "all measure"),
    "a negative one": Case(lambda: custom(MINUS, X_Hub_Signature_256=hub(MINUS)), 400, "all measure"),
    "no key": Case(lambda: custom(sender="tools"), 401, "no X-Api-Key header"),
    "a wrong key": Case(lambda: custom(sender="tools", X_Api_Key="guessed"), 401, "no secret matched"),
}

HTTP = {
    "GET": Case(lambda: stripe(EVENT, method="GET"), 405, "for POST"),
    "PUT": Case(lambda: stripe(EVENT, method="PUT"), 405, "for POST"),
    "DELETE": Case(lambda: stripe(EVENT, method="DELETE"), 405, "for POST"),
    "OPTIONS": Case(lambda: stripe(EVENT, method="OPTIONS"), 405, "for POST"),
    "a method that nobody knows": Case(lambda: stripe(EVENT, method="BREW"), 400, "not HTTP: Invalid method"),
    "CONNECT": Case(lambda: b"CONNECT evil:443 HTTP/1.1\r\nHost: test\r\n\r\n", 400, "upgrade"),
    # where?
    "an unknown provider": Case(lambda: stripe(EVENT, path="/webhooks/paypal"), 404, "Not Found"),
    "a way around": Case(lambda: stripe(EVENT, path="/webhooks/../webhooks/stripe"), 404, "Not Found"),
    "a slash too many": Case(lambda: stripe(EVENT, path="/webhooks/stripe/"), 404, "Not Found"),
    "another two slashes": Case(lambda: stripe(EVENT, path="//webhooks/stripe"), 404, "Not Found"),
    "capitals": Case(lambda: stripe(EVENT, path="/Webhooks/Stripe"), 404, "Not Found"),
    "a NUL in the path": Case(lambda: stripe(EVENT, path="/webhooks/stripe\0"), 400, "Invalid char in url"),
    "an escaped NUL in the path": Case(lambda: stripe(EVENT, path="/webhooks/stripe%00"), 404, "Not Found"),
    "an escape that is no UTF-8": Case(lambda: stripe(EVENT, path="/webhooks/%ff%fe"), 404, "Not Found"),
    "a path that is not ASCII": Case(lambda: stripe(EVENT, path="/webhooks/é"), 400, "Invalid char in url"),
    "an address without a path": Case(lambda: stripe(EVENT, path="http://test"), 400, "not HTTP"),
    "a target of many kilobytes": Case(lambda: stripe(path="/webhooks/stripe?" + "x" * 20_000), 414, "more than 16384"),
    # headers
    "no HTTP": Case(lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "not HTTP: Invalid method"),
    "nothing but empty lines": Case(lambda: b"\r\n" * 10_000, 431, "more than 16384"),
    "HTTP/2": Case(lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "not HTTP"),
    "HTTP/3.7": Case(lambda: head(HOST, LENGTH, version=b"3.7"), 400, "Invalid HTTP version"),
    "no host": Case(lambda: head(LENGTH), 400, "0 Host headers"),
    "two hosts": Case(lambda: head(HOST, HOST, LENGTH), 400, "2 Host headers"),
    "too many headers": Case(lambda: head(HOST, LENGTH, *[b"X: y"] * 200), 431, "more than 100 headers"),
    "a header of many kilobytes": Case(lambda: head(HOST, LENGTH, b"X: " + b"y" * 20_000), 431, "more than 16384"),
    "many kilobytes of headers": Case(lambda: head(HOST, LENGTH, *[b"X: " + b"y" * 1000] * 20), 431, "more than 16384"),
    "a NUL in a header": Case(lambda: head(HOST, LENGTH, b"X: a\0b"), 400, "Invalid header value"),
    "a header without a colon": Case(lambda: head(HOST, LENGTH, b"garbage"), 400, "Invalid header token"),
    "a header without a name": Case(lambda: head(HOST, LENGTH, b": x"), 400, "Invalid header token"),
    "a space in a header's name": Case(lambda: head(HOST, LENGTH, b"X Y: z"), 400, "Invalid header token"),
    "a folded header": Case(lambda: head(HOST, LENGTH, b"X: a\r\n b: c"), 400, "not HTTP"),
    "lines that end on LF alone": Case(lambda: head(HOST, LENGTH).replace(b"\r\n", b"\n"), 400, "Expected CRLF"),
    "a lone CR in a header": Case(lambda: head(HOST, LENGTH, b"X: a\rY: b"), 400, "Missing expected LF"),
    # two ways to read where the body ends
    "a length and chunks": Case(lambda: pieces(LENGTH, CHUNKED), 400, "can't be present"),
    "chunks and a length": Case(lambda: pieces(CHUNKED, LENGTH), 400, "can't be present"),
    "two lengths": Case(lambda: head(HOST, LENGTH, b"Content-Length: 3"), 400, "Duplicate Content-Length"),
    "the same length twice": Case(lambda: head(HOST, LENGTH, LENGTH), 400, "Duplicate Content-Length"),
    "a list of lengths": Case(lambda: head(HOST, LENGTH + b", 3"), 400, "in Content-Length"),
    "a negative length": Case(lambda: head(HOST, b"Content-Length: -1"), 400, "in Content-Length"),
    "a length with a plus": Case(lambda: head(HOST, b"Content-Length: +9"), 400, "in Content-Length"),
    "a length in hexadecimal": Case(lambda: head(HOST, b"Content-Length: 0x9"), 400, "in Content-Length"),
    "a length beyond all measure": Case(lambda: head(HOST, b"Content-Length: " + b"9" * 30), 400, "overflow"),
    "nearly chunked": Case(lambda: pieces(b"Transfer-Encoding: xchunked"), 400, "transfer encoding"),
    "chunked, then something": Case(lambda: pieces(CHUNKED + b", identity"), 400, "Transfer-Encoding"),
    "something, then chunked": Case(lambda: pieces(b"Transfer-Encoding: gzip, chunked"), 400, "transfer encoding"),
    "chunked twice": Case(lambda: pieces(CHUNKED, CHUNKED), 400, "(?i)transfer.encoding"),
    "a space before the colon": Case(lambda: pieces(b"Transfer-Encoding : chunked"), 400, "Invalid header"),
    "a chunk's size that is none": Case(lambda: head(HOST, CHUNKED, body=b"zz\r\nabc\r\n0\r\n\r\n"), 400, "chunk size"),
    "a negative chunk": Case(lambda: head(HOST, CHUNKED, body=b"-1\r\nabc\r\n0\r\n\r\n"), 400, "chunk size"),
    "a chunk beyond all measure": Case(lambda: head(HOST, CHUNKED, body=b"f" * 20 + b"\r\nabc"), 400, "overflow"),
    "a chunk longer than it says": Case(lambda: head(HOST, CHUNKED, body=b"1\r\nabc\r\n0\r\n\r\n"), 400, "not HTTP"),
    "a body shorter than it says": Case(lambda: head(HOST, b"Content-Length: 9999"), 503, "no whole body"),
    "headers without an end": Case(lambda: head(HOST, LENGTH).partition(b"\r\n\r\n")[0], 408, "no whole headers"),
    # another protocol
    "a WebSocket": Case(lambda: head(HOST, UPGRADE + b"websocket", method=b"GET"), 405, "for POST"),
    "a WebSocket by POST": Case(lambda: head(HOST, LENGTH, UPGRADE + b"websocket"), 400, "an upgrade"),
    "HTTP/2 without TLS": Case(lambda: head(HOST, LENGTH, UPGRADE + b"h2c"), 400, "an upgrade"),
}  # fmt: skip

TABLE: Mapping[str, Mapping[str, Case]] = {
    "Stripe": STRIPE,
    "SendGrid": SENDGRID,
    "Twilio": TWILIO,
    "Google": GOOGLE,
    "Outlook": OUTLOOK,
    "Inbound mail": INBOUND,
    "Custom": CUSTOM,
    "HTTP": HTTP,
}

ODD_BUT_GOOD: Mapping[str, Callable[[], bytes]] = {
    "as it comes": lambda: stripe(EVENT),
    "nearly too old": lambda: sent(250),
    "nearly too far in the future": lambda: sent(-250),
    "the type in capitals, with a charset": lambda: stripe(EVENT, Content_Type="Application/JSON; charset=utf-8"),
    "in chunks": lambda: chunked(EVENT),
    "in chunks of a byte, with extensions and a trailer": lambda: chunked(
        EVENT, size=1, extension=b";a=b", trailers=b"X: y\r\n"
    ),
    "by HTTP/1.0": lambda: head(LENGTH, version=b"1.0"),
    "with the whole address as its target": lambda: stripe(EVENT, path="http://elsewhere/webhooks/stripe"),
    "with a query": lambda: stripe(EVENT, path="/webhooks/stripe?x=%00"),
    "with empty lines before it": lambda: b"\r\n\r\n" + stripe(EVENT),
}
"""Requests of the same event that are to be taken: the event is stored by the first, once."""
