"""Whether a webhook comes from whom it names, and is fresh.

Stripe's and SendGrid's SDKs check their signatures; Twilio's is checked here (see docs/decisions).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs, parse_qsl, urlsplit

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


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook's request.

    Args:
        url: What the provider called, as far as we know.
        headers: The request's.
        body: The request's.
    """

    url: str
    headers: Headers
    body: bytes

    @property
    def content_type(self) -> str:
        """The body's type, without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def query(self) -> Mapping[str, str]:
        """The URL's query parameters."""
        return dict(parse_qsl(urlsplit(self.url).query))


class Verifier(Protocol):
    """Checks one provider's requests."""

    def prepare(self) -> None:
        """Imports and parses what `verify` needs: up to a second's work.

        Raises:
            RefusedError: The settings do not let us verify anything (503).
        """
        ...

    def verify(self, hook: Hook) -> None:
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

    def verify(self, hook: Hook) -> None:
        """See `Verifier.verify`."""
        _require(self._secrets, "PIVOTAL_STRIPE_WEBHOOK_SECRETS")
        header = _header(hook.headers, self._HEADER)
        found = _STRIPE_TIME.search(header)
        sent_at = _time(found[1] if found else "", self._HEADER)
        if "v1=" not in header:
            raise RefusedError(400, f"{self._HEADER} has no v1 signature")
        text = _text(hook.body)
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

    def verify(self, hook: Hook) -> None:
        """See `Verifier.verify`."""
        from sendgrid.helpers.eventwebhook import EventWebhook

        _require(self._keys, "PIVOTAL_SENDGRID_WEBHOOK_KEYS")
        signature = _base64(_header(hook.headers, self._SIGNATURE), self._SIGNATURE)
        timestamp = _header(hook.headers, self._TIMESTAMP)
        sent_at = _time(timestamp, self._TIMESTAMP)
        text = _text(hook.body)
        if not any(EventWebhook().verify_signature(text, signature, timestamp, key) for key in self._keys):
            raise RefusedError(401, f"no key matched; {len(self._keys)} tried")
        _check_age(sent_at, self._tolerance)

    @cached_property
    def _keys(self) -> list[EllipticCurvePublicKey]:
        return [_sendgrid_key(text, number) for number, text in enumerate(self._texts, 1)]


class TwilioVerifier:
    """HMAC over the URL and the form (https://www.twilio.com/docs/usage/security). It holds no time.

    A body of JSON is not signed itself: its SHA-256 stands in the URL, which is.

    Args:
        settings: Twilio's auth tokens, any of which may have signed.
    """

    _HEADER = "X-Twilio-Signature"
    _SETTINGS = "X-Twilio-Webhooks-Signature-Settings"

    def __init__(self, settings: Settings) -> None:
        tokens = settings.twilio_webhook_tokens
        self._tokens = _split(tokens.get_secret_value() if tokens else None)

    def prepare(self) -> None:
        """See `Verifier.prepare`."""
        _require(self._tokens, "PIVOTAL_TWILIO_WEBHOOK_TOKENS")

    def verify(self, hook: Hook) -> None:
        """See `Verifier.verify`."""
        _require(self._tokens, "PIVOTAL_TWILIO_WEBHOOK_TOKENS")
        signature = _header(hook.headers, self._HEADER)
        algorithm = _twilio_algorithm(hook.headers.get(self._SETTINGS, ""))
        signed = _twilio_signed(hook)
        made = (
            base64.b64encode(hmac.digest(token.encode(), f"{url}{signed}".encode(), algorithm)).decode()
            for token in self._tokens
            for url in _with_and_without_port(hook.url)
        )
        if not any(hmac.compare_digest(one, signature) for one in made):
            seen = hook.url.partition("?")[0]
            raise RefusedError(
                401,
                f"no token matched; {len(self._tokens)} tried",
                hint=f"Twilio signs the very URL that it calls; if that is not {seen}, set PIVOTAL_GATEWAY_URL",
            )


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


def _twilio_signed(hook: Hook) -> str:
    """What is signed behind the URL: the form's names and values, sorted; nothing of JSON."""
    if hook.content_type == "application/json":
        told = hook.query.get("bodySHA256", "")
        if not hmac.compare_digest(hashlib.sha256(hook.body).hexdigest().encode(), told.lower().encode()):
            raise RefusedError(401, "the body is not the one whose bodySHA256 the URL tells")
        return ""
    try:
        form = parse_qs(_text(hook.body), keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        raise RefusedError(400, f"the body is not a form: {error}") from None
    return "".join(name + value for name in sorted(form) for value in sorted(set(form[name])))


def _twilio_algorithm(told: str) -> str:
    """Auth tokens sign with SHA-1; a key that is shared with Twilio says `key=...,algorithm=HMAC_SHA256`."""
    found = re.search(r"(?:^|,)\s*algorithm=([^,]*)", told)
    name = found[1].strip().upper() if found else "HMAC_SHA1"
    if name not in {"HMAC_SHA1", "HMAC_SHA256"}:
        raise RefusedError(400, "a signature by an algorithm that is not known")
    return name.removeprefix("HMAC_")


def _with_and_without_port(url: str) -> Iterator[str]:
    """Twilio signs sometimes with, sometimes without the port, as its SDKs have it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition(":")[0] if parts.port else parts.netloc
    yield parts._replace(netloc=host).geturl()
    yield parts._replace(netloc=f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}").geturl()


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
