"""Twilio's webhooks: what becomes of messages, and those that come in (https://www.twilio.com/docs/usage/security).

The signature is an HMAC over the URL and the form; it holds no time. A body of JSON is not signed itself: its SHA-256
stands in the URL, which is.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from starlette.responses import Response

from events.cause import new_event
from events.envelope import Event
from gateway.mapping import parse_object, required, text, type_name
from gateway.provider import JSON, Hook, Received
from gateway.refusal import RefusedError
from gateway.verify import header, in_utf8, require
from settings import Settings, several

_VARIABLE = "PIVOTAL_TWILIO_WEBHOOK_TOKENS"
_HEADER = "X-Twilio-Signature"
_SETTINGS = "X-Twilio-Webhooks-Signature-Settings"
_NOTHING = Response("<Response/>", media_type="text/xml")
"""Whoever sends an inbound message is answered with what this says: nothing."""


class Twilio:
    """See `Provider`.

    Args:
        settings: Twilio's auth tokens, any of which may have signed.
    """

    name, path, content_types = "twilio", "/webhooks/twilio", JSON | {"application/x-www-form-urlencoded"}

    def __init__(self, settings: Settings) -> None:
        self.body_limit = settings.webhook_body_limit
        self._tokens = several(settings.twilio_webhook_tokens)

    def prepare(self) -> None:
        """See `Provider.prepare`."""
        require(self._tokens, _VARIABLE)

    def receive(self, hook: Hook) -> Received:
        """See `Provider.receive`."""
        self._verify(hook)
        return Received(twilio_events(hook), _NOTHING)

    def _verify(self, hook: Hook) -> None:
        require(self._tokens, _VARIABLE)
        signature = header(hook.headers, _HEADER)
        algorithm = _algorithm(hook.headers.get(_SETTINGS, ""))
        signed = _signed(hook)
        urls = _with_and_without_port(hook.url)
        made = (
            base64.b64encode(hmac.digest(token.encode(), f"{url}{signed}".encode(), algorithm)).decode()
            for token in self._tokens
            for url in urls
        )
        if not any(hmac.compare_digest(one, signature) for one in made):
            seen = hook.url.partition("?")[0]
            raise RefusedError(
                401,
                f"no token matched; {len(self._tokens)} tried",
                hint=f"Twilio signs the very URL that it calls; if that is not {seen}, set PIVOTAL_GATEWAY_URL",
            )


def twilio_events(hook: Hook) -> list[Event]:
    """What Twilio tells of one message: a new status of one that we sent, or one that somebody sent us.

    It has neither an id nor a time: a message comes to a status once, and it is now. The operation that the message
    was sent by stands in the URL (see `integrations.twilio`), and is kept beside what Twilio told.

    Args:
        hook: The request, verified; a form, or a JSON object with the same fields.

    Raises:
        RefusedError: It is not about a message (400).
    """
    told = _form_or_json(hook)
    sid, status = (
        required(told, "MessageSid"),
        required(told, "MessageStatus" if "MessageStatus" in told else "SmsStatus"),
    )
    operation = {name: value for name, value in hook.query.items() if name == "operation_key"}
    key = "/".join(part for part in (sid, status, text(told.get("ErrorCode"))) if part)
    kind = type_name("twilio", f"message.{status}")
    return [new_event(kind, ("message", sid), {**told, **operation}, source="twilio", dedupe_key=key)]


def _form_or_json(hook: Hook) -> dict[str, Any]:
    if hook.content_type != "application/json":
        return dict(parse_qsl(hook.body.decode(), keep_blank_values=True))
    return parse_object(hook.body)


def _signed(hook: Hook) -> str:
    """What is signed behind the URL: the form's names and values, sorted; nothing of JSON."""
    if hook.content_type == "application/json":
        told = hook.query.get("bodySHA256", "")
        if not hmac.compare_digest(hashlib.sha256(hook.body).hexdigest().encode(), told.lower().encode()):
            raise RefusedError(401, "the body is not the one whose bodySHA256 the URL tells")
        return ""
    try:
        form = parse_qs(in_utf8(hook.body), keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        raise RefusedError(400, f"the body is not a form: {error}") from None
    return "".join(name + value for name in sorted(form) for value in sorted(set(form[name])))


def _algorithm(told: str) -> str:
    """Auth tokens sign with SHA-1; a key that is shared with Twilio says `key=...,algorithm=HMAC_SHA256`."""
    found = re.search(r"(?:^|,)\s*algorithm=([^,]*)", told)
    name = found[1].strip().upper() if found else "HMAC_SHA1"
    if name not in {"HMAC_SHA1", "HMAC_SHA256"}:
        raise RefusedError(400, "a signature by an algorithm that is not known")
    return name.removeprefix("HMAC_")


def _with_and_without_port(url: str) -> list[str]:
    """Twilio signs sometimes with, sometimes without the port, as its SDKs have it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise RefusedError(400, "the Host header is not an address") from None
    host = parts.netloc.rpartition(":")[0] if port else parts.netloc
    with_port = f"{host}:{port or (443 if parts.scheme == 'https' else 80)}"
    return [parts._replace(netloc=netloc).geturl() for netloc in (host, with_port)]
