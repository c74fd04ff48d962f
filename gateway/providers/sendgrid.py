"""SendGrid's event webhook: batches of what became of mails, signed by ECDSA over timestamp and body."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from events.cause import new_event
from events.envelope import Event
from gateway.mapping import moment, parse, required, text, type_name
from gateway.provider import JSON, Hook, Received
from gateway.refusal import RefusedError
from gateway.verify import check_age, header, in_base64, in_utf8, require, seconds
from integrations.mail_names import sent_id
from settings import Settings, several

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

_VARIABLE = "PIVOTAL_SENDGRID_WEBHOOK_KEYS"
_SIGNATURE = "X-Twilio-Email-Event-Webhook-Signature"
_TIMESTAMP = "X-Twilio-Email-Event-Webhook-Timestamp"


class SendGrid:
    """See `Provider`.

    Args:
        settings: SendGrid's public keys, any of which may match, and the tolerance.
    """

    name, path, content_types = "sendgrid", "/webhooks/sendgrid", JSON

    def __init__(self, settings: Settings) -> None:
        self._texts = several(settings.sendgrid_webhook_keys)
        self._tolerance = settings.webhook_tolerance

    def prepare(self) -> None:
        """See `Provider.prepare`."""
        require(self._keys, _VARIABLE)

    def receive(self, hook: Hook) -> Received:
        """See `Provider.receive`."""
        self._verify(hook)
        return Received(sendgrid_events(hook.body))

    def _verify(self, hook: Hook) -> None:
        from sendgrid.helpers.eventwebhook import EventWebhook

        require(self._keys, _VARIABLE)
        signature = in_base64(header(hook.headers, _SIGNATURE), _SIGNATURE)
        timestamp = header(hook.headers, _TIMESTAMP)
        sent_at = seconds(timestamp, _TIMESTAMP)
        body = in_utf8(hook.body)
        if not any(EventWebhook().verify_signature(body, signature, timestamp, key) for key in self._keys):
            raise RefusedError(401, f"no key matched; {len(self._keys)} tried")
        check_age(sent_at, self._tolerance)

    @cached_property
    def _keys(self) -> list[EllipticCurvePublicKey]:
        return [_key(each, number) for number, each in enumerate(self._texts, 1)]


def sendgrid_events(body: bytes) -> list[Event]:
    """The batch that SendGrid's event webhook sends.

    Args:
        body: The request's body, verified.

    Raises:
        RefusedError: It is not a list of events of SendGrid's (400).
    """
    told = parse(body)
    if not isinstance(told, list) or not all(isinstance(item, dict) for item in told):
        raise RefusedError(400, "the body is not a JSON list of objects")
    return [_event(item) for item in told]


def _event(item: dict[str, Any]) -> Event:
    # Without an id of SendGrid's, the item is its own: sent again, it is the same.
    event_id = text(item.get("sg_event_id")) or hashlib.sha256(to_json(item)).hexdigest()
    message_id = sent_id(text(item.get("sg_message_id")))
    return new_event(
        type_name("sendgrid", required(item, "event")),
        ("message", message_id) if message_id else ("event", event_id),
        item,
        source="sendgrid",
        dedupe_key=event_id,
        timestamp=moment(item.get("timestamp")),
    )


def _key(told: str, number: int) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from sendgrid.helpers.eventwebhook import EventWebhook

    # The SDK puts PEM armour around the key, and fails on one that has it; \n is how variables often spell newlines.
    bare = re.sub(r"-----[A-Z ]+-----|\\n|\s", "", told)
    try:
        key = EventWebhook().convert_public_key_to_ecdsa(bare)
    except ValueError:
        key = None
    if not isinstance(key, EllipticCurvePublicKey):
        raise RefusedError(
            503,
            f"key {number} in {_VARIABLE} is not an elliptic-curve public key",
            hint="copy the verification key from SendGrid: Settings > Mail Settings > Event Webhook",
        )
    return key
