"""SendGrid's event webhook: batches of what became of mails."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic_core import to_json

from events.cause import new_event
from events.envelope import Event
from gateway.mapping import moment, parse, required, text, type_name
from gateway.provider import JSON, Hook, Received
from gateway.providers.sendgrid_signature import Signature
from gateway.refusal import RefusedError
from gateway.verify import in_utf8
from integrations.mail_names import sent_id
from settings import Settings


class SendGrid:
    """See `Provider`.

    Args:
        settings: SendGrid's public keys, any of which may match, and the tolerance.
    """

    name, path, content_types = "sendgrid", "/webhooks/sendgrid", JSON

    def __init__(self, settings: Settings) -> None:
        self.body_limit = settings.webhook_body_limit
        self._signature = Signature(
            "PIVOTAL_SENDGRID_WEBHOOK_KEYS",
            settings.sendgrid_webhook_keys,
            "Settings > Mail Settings > Event Webhook",
            settings.webhook_tolerance,
        )

    def prepare(self) -> None:
        """See `Provider.prepare`."""
        self._signature.prepare()

    def receive(self, hook: Hook) -> Received:
        """See `Provider.receive`."""
        self._signature.check(hook)
        return Received(sendgrid_events(hook.body))


def sendgrid_events(body: bytes) -> list[Event]:
    """The batch that SendGrid's event webhook sends.

    Args:
        body: The request's body, verified.

    Raises:
        RefusedError: It is not a list of events of SendGrid's (400).
    """
    in_utf8(body)
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
