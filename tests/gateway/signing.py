"""Signs requests as the providers do, by their documentation, without their SDKs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Mapping

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

JSON = {"Content-Type": "application/json"}
STRIPE_SECRETS = ("whsec_old_but_still_good", "whsec_new")
SENDGRID_KEYS = (ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1()))


def stripe_event(event_id: str | None = None, **fields: object) -> dict[str, object]:
    """An event as Stripe sends it."""
    return {
        "id": event_id or f"evt_{uuid.uuid4().hex}",
        "object": "event",
        "api_version": "2025-03-31.basil",
        "created": 1_700_000_000,
        "data": {"object": {"id": "cus_1", "object": "customer", "name": "Zoë"}},
        "livemode": False,
        "type": "customer.updated",
    } | fields


def sendgrid_event(event_id: str | None = None, **fields: object) -> dict[str, object]:
    """One item of a batch as SendGrid sends it."""
    return {
        "email": "zoe@example.com",
        "timestamp": 1_700_000_000,
        "event": "delivered",
        "sg_event_id": event_id or uuid.uuid4().hex,
        "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0",
    } | fields


def body_of(value: object) -> bytes:
    """JSON as the providers write it: UTF-8, letters as they are."""
    return json.dumps(value, ensure_ascii=False).encode()


def stripe_headers(body: bytes, secret: str = STRIPE_SECRETS[1], *, age: float = 0) -> dict[str, str]:
    """Headers of a request that Stripe sent `age` seconds ago."""
    timestamp = int(time.time() - age)
    return JSON | {"Stripe-Signature": f"t={timestamp},v1={stripe_signature(body, secret, timestamp)},v0=ignored"}


def stripe_signature(body: bytes, secret: str, timestamp: int) -> str:
    """The `v1` part of Stripe's header."""
    return hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()


def sendgrid_headers(
    body: bytes, key: ec.EllipticCurvePrivateKey = SENDGRID_KEYS[1], *, age: float = 0
) -> dict[str, str]:
    """Headers of a request that SendGrid sent `age` seconds ago."""
    timestamp = str(int(time.time() - age))
    signature = key.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return JSON | {
        "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
        "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
    }


INBOUND_KEYS = (ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1()))
MAIL: dict[str, bytes] = {
    "headers": b"Message-Id: <1@example.com>\nSubject: Hello\n",
    "from": "Zoë <zoe@example.com>".encode(),
    "to": b"in@parse.example.com",
    "subject": "Grüße".encode("latin-1"),
    "text": "Schöne Grüße".encode("latin-1"),
    "envelope": b'{"to":["in@parse.example.com"],"from":"zoe@example.com"}',
    "charsets": b'{"from":"UTF-8","to":"UTF-8","subject":"iso-8859-1","text":"ISO-8859-1"}',
    "SPF": b"pass",
    "attachments": b"1",
    "attachment-info": b'{"attachment1":{"filename":"a.pdf","name":"a.pdf","type":"application/pdf"}}',
}
"""A mail's fields as SendGrid posts them: text in the charsets that `charsets` names."""
MULTIPART = {"Content-Type": "multipart/form-data; boundary=xYzZY"}


def mail_form(fields: Mapping[str, bytes] = MAIL, files: Mapping[str, bytes] | None = None) -> bytes:
    """The body of inbound parse."""
    made = b"".join(
        b'--xYzZY\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)
        for name, value in fields.items()
    )
    for number, (filename, content) in enumerate((files or {}).items(), 1):
        head = f'Content-Disposition: form-data; name="attachment{number}"; filename="{filename}"'
        made += f"--xYzZY\r\n{head}\r\nContent-Type: application/pdf\r\n\r\n".encode() + content + b"\r\n"
    return made + b"--xYzZY--\r\n"


def mail_headers(body: bytes, key: ec.EllipticCurvePrivateKey = INBOUND_KEYS[1], *, age: float = 0) -> dict[str, str]:
    """Headers of a mail that SendGrid posted, signed, `age` seconds ago."""
    return sendgrid_headers(body, key, age=age) | MULTIPART


TWILIO_TOKENS = ("token_that_is_rotated_out", "token_of_now")
TWILIO_PATH = "/webhooks/twilio"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def twilio_status(status: str = "delivered", sid: str = "SM1", **fields: str) -> dict[str, str]:
    """A status callback's parameters."""
    return {
        "MessageSid": sid, "SmsSid": sid, "MessageStatus": status, "SmsStatus": status, "AccountSid": "AC1",
        "From": "+15005550006", "To": "+14155550100", "ApiVersion": "2010-04-01",
    } | fields  # fmt: skip


def twilio_inbound(body: str = "Zoë: 1 + 1 = 2?", sid: str = "SM2", **fields: str) -> dict[str, str]:
    """An inbound message's parameters."""
    return {
        "MessageSid": sid, "SmsSid": sid, "SmsStatus": "received", "AccountSid": "AC1", "From": "+14155550100",
        "To": "+15005550006", "Body": body, "NumMedia": "0", "NumSegments": "1", "ApiVersion": "2010-04-01",
    } | fields  # fmt: skip


def twilio_headers(
    url: str, params: Mapping[str, str], token: str = TWILIO_TOKENS[1], *, algorithm: str = "sha1"
) -> dict[str, str]:
    """Headers of a form that Twilio sent to this URL; of JSON, if there are no parameters."""
    signed = url + "".join(f"{name}{params[name]}" for name in sorted(params))
    signature = base64.b64encode(hmac.new(token.encode(), signed.encode(), algorithm).digest()).decode()
    return (FORM if params else JSON) | {"X-Twilio-Signature": signature}


WATCH_SECRETS = ("a_watch_of_last_year", "the_watch_of_now")


def google_headers(
    state: str = "exists", number: int = 2, channel: str = "channel-1", token: str = WATCH_SECRETS[1]
) -> dict[str, str]:
    """Headers of a notification of Google's; its body is empty."""
    return {
        "X-Goog-Channel-ID": channel,
        "X-Goog-Channel-Token": token,
        "X-Goog-Channel-Expiration": "Tue, 19 Nov 2030 01:13:52 GMT",
        "X-Goog-Resource-ID": "ret08u3rv24htgh289g",
        "X-Goog-Resource-URI": "https://www.googleapis.com/calendar/v3/calendars/primary/events?alt=json",
        "X-Goog-Resource-State": state,
        "X-Goog-Message-Number": str(number),
    }


def outlook_change(etag: str = 'W/"1"', **fields: object) -> dict[str, object]:
    """One of Graph's notifications."""
    return {
        "subscriptionId": "sub-1",
        "subscriptionExpirationDateTime": "2030-11-20T18:23:45.9356913Z",
        "changeType": "updated",
        "resource": "Users/u-1/Events/e-1",
        "resourceData": {"@odata.type": "#Microsoft.Graph.Event", "@odata.etag": etag, "id": "e-1"},
        "clientState": WATCH_SECRETS[1],
        "tenantId": "t-1",
    } | fields


def outlook_lifecycle(event: str, **fields: object) -> dict[str, object]:
    """What Graph tells of a subscription itself."""
    return {
        "subscriptionId": "sub-1",
        "subscriptionExpirationDateTime": "2030-11-20T18:23:45.9356913Z",
        "clientState": WATCH_SECRETS[1],
        "tenantId": "t-1",
        "lifecycleEvent": event,
    } | fields


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """A public key with its PEM armour."""
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, spki).decode()


def public_base64(key: ec.EllipticCurvePrivateKey) -> str:
    """A public key as SendGrid's dashboard shows it."""
    return "".join(public_pem(key).splitlines()[1:-1])


SECRETS: Mapping[str, str] = {
    "PIVOTAL_STRIPE_WEBHOOK_SECRETS": ", ".join(STRIPE_SECRETS),
    "PIVOTAL_SENDGRID_WEBHOOK_KEYS": ",".join(public_base64(key) for key in SENDGRID_KEYS),
    "PIVOTAL_SENDGRID_INBOUND_KEYS": " , ".join(public_base64(key) for key in INBOUND_KEYS),
    "PIVOTAL_TWILIO_WEBHOOK_TOKENS": " , ".join(TWILIO_TOKENS),
    "PIVOTAL_GOOGLE_WATCH_SECRET": " , ".join(WATCH_SECRETS),
    "PIVOTAL_OUTLOOK_WATCH_SECRET": ",".join(WATCH_SECRETS),
}
"""The variables that tell a receiver what to verify with."""
