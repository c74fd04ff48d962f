"""Whether a webhook comes from whom it names, and is fresh. The providers' own SDKs check the signatures."""

from __future__ import annotations

import base64
import binascii
import re
import time
from functools import cache, cached_property
from typing import TYPE_CHECKING, Protocol

from starlette.datastructures import Headers

from gateway.refusal import RefusedError
from settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from stripe import SignatureVerificationError, WebhookSignature

_STRIPE_TIME = re.compile(r"(?:^|,)t=([^,]*)")
"""The first `t`, as in the SDK."""
_SECONDS = re.compile(r"[0-9]{1,11}")
_LONGEST_HEADER = 4096


class Verifier(Protocol):
    """Checks one provider's requests."""

    def prepare(self) -> None:
        """Imports and parses what `verify` needs: up to a second's work.

        Raises:
            RefusedError: The settings do not let us verify anything (503).
        """
        ...

    def verify(self, headers: Headers, body: bytes) -> None:
        """Returns if the request is genuine and fresh.

        Raises:
            RefusedError: It is malformed (400), not genuine or not fresh (401), or we cannot tell (503).
        """
        ...


class StripeVerifier:
    """HMAC-SHA256 over timestamp and body (https://docs.stripe.com/webhooks/signature).

    Args:
        settings: Stripe's secrets, any of which may have signed, and the tolerance.
    """

    _HEADER = "Stripe-Signature"

    def __init__(self, settings: Settings) -> None:
        secrets = settings.stripe_webhook_secrets
        self._secrets = _split(secrets.get_secret_value() if secrets else None)
        self._tolerance = settings.webhook_tolerance

    def prepare(self) -> None:
        """See `Verifier.prepare`."""
        _require(self._secrets, "PIVOTAL_STRIPE_WEBHOOK_SECRETS")
        _stripe()

    def verify(self, headers: Headers, body: bytes) -> None:
        """See `Verifier.verify`."""
        _require(self._secrets, "PIVOTAL_STRIPE_WEBHOOK_SECRETS")
        header = _header(headers, self._HEADER)
        found = _STRIPE_TIME.search(header)
        sent_at = _time(found[1] if found else "", self._HEADER)
        if "v1=" not in header:
            raise RefusedError(400, f"{self._HEADER} has no v1 signature")
        text = _text(body)
        if not any(_stripe_signed(text, header, secret) for secret in self._secrets):
            raise RefusedError(401, f"no secret matched; {len(self._secrets)} tried")
        _check_age(sent_at, self._tolerance)


class SendGridVerifier:
    """ECDSA over timestamp and body (Twilio SendGrid's "signed event webhook").

    Args:
        settings: SendGrid's public keys, any of which may match, and the tolerance.
    """

    _SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
    _TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"

    def __init__(self, settings: Settings) -> None:
        self._texts = _split(settings.sendgrid_webhook_keys)
        self._tolerance = settings.webhook_tolerance

    def prepare(self) -> None:
        """See `Verifier.prepare`."""
        _require(self._keys, "PIVOTAL_SENDGRID_WEBHOOK_KEYS")

    def verify(self, headers: Headers, body: bytes) -> None:
        """See `Verifier.verify`."""
        from sendgrid.helpers.eventwebhook import EventWebhook

        _require(self._keys, "PIVOTAL_SENDGRID_WEBHOOK_KEYS")
        signature = _base64(_header(headers, self._SIGNATURE), self._SIGNATURE)
        timestamp = _header(headers, self._TIMESTAMP)
        sent_at = _time(timestamp, self._TIMESTAMP)
        text = _text(body)
        if not any(EventWebhook().verify_signature(text, signature, timestamp, key) for key in self._keys):
            raise RefusedError(401, f"no key matched; {len(self._keys)} tried")
        _check_age(sent_at, self._tolerance)

    @cached_property
    def _keys(self) -> list[EllipticCurvePublicKey]:
        return [_sendgrid_key(text, number) for number, text in enumerate(self._texts, 1)]


def _stripe_signed(text: str, header: str, secret: str) -> bool:
    signature, wrong = _stripe()
    try:
        # No tolerance here: the SDK lets any future pass.
        return bool(signature.verify_header(text, header, secret, tolerance=None))
    except wrong:
        return False


@cache
def _stripe() -> tuple[type[WebhookSignature], type[SignatureVerificationError]]:
    """Kept, for the SDK looks its own names up anew at each import."""
    from stripe import SignatureVerificationError, WebhookSignature

    return WebhookSignature, SignatureVerificationError


def _sendgrid_key(text: str, number: int) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from sendgrid.helpers.eventwebhook import EventWebhook

    # The SDK puts PEM armour around the key, and fails on one that has it; \n is how variables often spell newlines.
    bare = re.sub(r"-----[A-Z ]+-----|\\n|\s", "", text)
    try:
        key = EventWebhook().convert_public_key_to_ecdsa(bare)
    except ValueError:
        key = None
    if not isinstance(key, EllipticCurvePublicKey):
        raise RefusedError(
            503,
            f"key {number} in PIVOTAL_SENDGRID_WEBHOOK_KEYS is not an elliptic-curve public key",
            hint="copy the verification key from SendGrid: Settings > Mail Settings > Event Webhook",
        )
    return key


def _split(values: str | None) -> list[str]:
    return [value.strip() for value in (values or "").split(",") if value.strip()]


def _require(secrets: list[str] | list[EllipticCurvePublicKey], variable: str) -> None:
    if not secrets:
        raise RefusedError(503, f"nothing to verify signatures with: {variable} is not set", hint=f"set {variable}")


def _header(headers: Headers, name: str) -> str:
    values = headers.getlist(name)
    if not values:
        raise RefusedError(401, f"no {name} header")
    if len(values) > 1:
        raise RefusedError(400, f"{len(values)} {name} headers")
    # The SDK compares signatures in constant time, which raises TypeError on anything but ASCII.
    if not values[0].isascii() or len(values[0]) > _LONGEST_HEADER:
        raise RefusedError(400, f"{name} is not a signature")
    return values[0]


def _time(text: str, header: str) -> int:
    if not _SECONDS.fullmatch(text):
        raise RefusedError(400, f"{header} has no timestamp in seconds")
    return int(text)


def _base64(text: str, header: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        raise RefusedError(400, f"{header} is not base64") from None
    return text


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"the body is not UTF-8 (byte {error.start})") from None


def _check_age(sent_at: int, tolerance: int) -> None:
    age = int(time.time()) - sent_at
    if abs(age) > tolerance:
        when = f"{age} s old" if age > 0 else f"{-age} s in the future"
        raise RefusedError(401, f"timestamp {when}; {tolerance} s allowed", hint="compare this machine's clock")
