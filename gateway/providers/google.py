"""Google Calendar's push notifications: that something has changed, told in headers; the body is empty.

They are not signed: they carry the secret that the watch was asked for with
(https://developers.google.com/workspace/calendar/api/guides/push).
"""

from __future__ import annotations

import re

from events.cause import new_event
from gateway.mapping import type_name
from gateway.provider import Hook, Received
from gateway.refusal import RefusedError
from gateway.verify import check_secret, header, require
from settings import Settings, several

_VARIABLE = "PIVOTAL_GOOGLE_WATCH_SECRET"
_TOKEN = "X-Goog-Channel-Token"  # noqa: S105  (a header's name)
_NUMBER = "X-Goog-Message-Number"
_ALSO_KEPT = {
    "resource_id": "X-Goog-Resource-ID",
    "resource_uri": "X-Goog-Resource-URI",
    "channel_expiration": "X-Goog-Channel-Expiration",
}
_CHANGES = frozenset({"exists", "not_exists"})


class Google:
    """See `Provider`.

    Args:
        settings: The secrets of our watches, any of which may come.
    """

    name, path = "google", "/webhooks/google"
    content_types: frozenset[str] = frozenset()

    def __init__(self, settings: Settings) -> None:
        self.body_limit = settings.webhook_body_limit
        self._secrets = several(settings.google_watch_secret)

    def prepare(self) -> None:
        """See `Provider.prepare`."""
        require(self._secrets, _VARIABLE)

    def receive(self, hook: Hook) -> Received:
        """See `Provider.receive`. `sync`, which opens a watch, is stored, too: it shows that notifications arrive."""
        require(self._secrets, _VARIABLE)
        check_secret(header(hook.headers, _TOKEN), self._secrets)
        channel, number, state = (_told(hook, name) for name in ("X-Goog-Channel-ID", _NUMBER, "X-Goog-Resource-State"))
        if not re.fullmatch(r"[0-9]{1,20}", number):
            raise RefusedError(400, f"{_NUMBER} is not a number")
        told = {"channel_id": channel, "message_number": int(number), "resource_state": state}
        also = {name: value for name, header_ in _ALSO_KEPT.items() if (value := hook.headers.get(header_))}
        event = new_event(
            type_name("google", f"calendar.{'changed' if state in _CHANGES else state}"),
            ("calendar_watch", channel),
            told | also,
            source="google",
            dedupe_key=f"{channel}/{number}",
        )
        return Received([event])


def _told(hook: Hook, name: str) -> str:
    if not (value := header(hook.headers, name, missing=400)):
        raise RefusedError(400, f"the {name} header is empty")
    return value
