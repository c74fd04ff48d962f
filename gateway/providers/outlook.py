"""Microsoft Graph's notifications of Outlook's calendars, and of what becomes of the subscriptions themselves.

They are not signed: each carries the secret of its subscription, `clientState`. Before Graph makes a subscription, it
asks whether we want one (https://learn.microsoft.com/graph/change-notifications-delivery-webhooks).
"""

from __future__ import annotations

import hashlib
import logging
import re
from typing import Any

from pydantic_core import to_json
from starlette.responses import PlainTextResponse, Response

from events.cause import new_event
from events.envelope import Event
from gateway.mapping import parse_object, required, text, type_name
from gateway.provider import JSON, Hook, Received
from gateway.refusal import RefusedError
from gateway.verify import is_secret, require
from settings import Settings, several

logger = logging.getLogger(__name__)

_VARIABLE = "PIVOTAL_OUTLOOK_WATCH_SECRET"
_TOKEN = re.compile(r"[ -;=?-~]{1,1024}")
"""Printable ASCII without angle brackets: what is sent back is what anybody chose to send."""
_PLAIN = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'"}
_TAKEN = Response(status_code=202)


class Outlook:
    """See `Provider`.

    Args:
        settings: The secrets of our subscriptions, any of which may come.
    """

    name, path = "outlook", "/webhooks/outlook"
    content_types = JSON | {"text/plain"}

    def __init__(self, settings: Settings) -> None:
        self.body_limit = settings.webhook_body_limit
        self._secrets = several(settings.outlook_watch_secret)

    def prepare(self) -> None:
        """See `Provider.prepare`."""
        require(self._secrets, _VARIABLE)

    def receive(self, hook: Hook) -> Received:
        """See `Provider.receive`."""
        require(self._secrets, _VARIABLE)
        if (token := hook.query.get("validationToken")) is not None:
            return Received([], _consent(token))
        return Received([_event(item) for item in self._genuine(parse_object(hook.body).get("value"))], _TAKEN)

    def _genuine(self, items: object) -> list[dict[str, Any]]:
        """The notifications with a secret of ours.

        Graph mixes what it has for one address, and sends all of it again for hours if we refuse: those of a forgotten
        subscription must not hold back the others. If none is genuine, nothing is taken.
        """
        if not isinstance(items, list) or not items:
            raise RefusedError(400, "the body has no notifications")
        genuine = [item for item in items if isinstance(item, dict) and self._knows(item)]
        reason = f"clientState of {len(items) - len(genuine)} of {len(items)} notifications matched no secret"
        if not genuine:
            raise RefusedError(401, f"{reason}; {len(self._secrets)} tried")
        if len(genuine) < len(items):
            logger.warning("notifications dropped", extra={"provider": self.name, "reason": reason})
        return genuine

    def _knows(self, item: dict[str, Any]) -> bool:
        return is_secret(text(item.get("clientState")), self._secrets)


def _consent(token: str) -> Response:
    if not _TOKEN.fullmatch(token):
        raise RefusedError(400, "the validationToken is none of Graph's")
    return PlainTextResponse(token, headers=_PLAIN)


def _event(item: dict[str, Any]) -> Event:
    told = {name: value for name, value in item.items() if name != "clientState"}
    lifecycle = text(told.get("lifecycleEvent"))
    what = f"subscription.{_snake_case(lifecycle)}" if lifecycle else "calendar.changed"
    watch = ("calendar_watch", required(told, "subscriptionId"))
    return new_event(type_name("outlook", what), watch, told, source="outlook", dedupe_key=_dedupe_key(told))


def _dedupe_key(told: dict[str, Any]) -> str | None:
    """Graph's id of the notification, if it has one; else all of it, if it names the version that it tells of.

    Without either, a second change looks like the first: rather twice than never.
    """
    if given := text(told.get("id")):
        return given
    resource = told.get("resourceData")
    has_version = isinstance(resource, dict) and text(resource.get("@odata.etag"))
    return hashlib.sha256(to_json(told)).hexdigest() if has_version else None


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
