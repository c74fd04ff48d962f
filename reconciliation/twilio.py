"""Twilio's messages since the last reading: how far each has come, and those that came in, as its webhooks tell it.

The list tells a message's status of now, not those that it has passed; a table keeps the furthest anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import dropwhile, islice, takewhile
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.datastructures import Headers

from etl.destinations.warehouse import Warehouse
from etl.lock import only_run_of
from events.envelope import Event
from events.log import EventLog
from gateway.provider import Hook
from gateway.providers.twilio import twilio_events
from reconciliation.reading import PORTION, Reconciled, begin, publish, remember, remembered

if TYPE_CHECKING:
    from integrations.twilio import Twilio
    from integrations.twilio.message import Message

OVERLAP = timedelta(days=1)
"""What is read again each time: a message may be under way for ten hours before it comes to its end."""

SETTLED = timedelta(minutes=5)
"""How old a message is that is read: the webhook, which tells more of it (media, STOP), has come by then."""

FIRST = timedelta(days=30)
"""How far the first reading goes back."""

_ALWAYS = datetime.min.replace(tzinfo=UTC)
_FORM = Headers({"content-type": "application/x-www-form-urlencoded"})


def reconcile_twilio(
    twilio: Twilio,
    log: EventLog,
    warehouse: Warehouse,
    *,
    run_id: str,
    since: datetime | None = None,
    keep: timedelta | None = None,
    now: datetime | None = None,
) -> Reconciled:
    """Publishes what has become of the messages that Twilio took since a day before the last reading.

    Args:
        twilio: Asks Twilio.
        log: Where the events go.
        warehouse: Where the time of the last reading is kept, and which operations sent messages.
        run_id: Who reads.
        since: Read from this time on; from where it would begin anyway if that is longer ago.
        keep: How long the log keeps events: what was deleted there would be new again, so it is not read. None: for
            ever.
        now: The time; only a test says another one.

    Raises:
        TwilioIntegrationError: Twilio refused, or cannot be reached; the next call reads the same again.
        EventLogError: The log cannot be written.
        DestinationError: The warehouse cannot be read or written.
        PivotalError: Another reading goes on.
    """
    with only_run_of("reconcile-twilio"):
        began, name = now or datetime.now(UTC), f"reconciliation/twilio/{twilio.config.account_sid}"
        last = remembered(log, warehouse, name).get("until")
        until = None if last is None else datetime.fromisoformat(str(last))
        start = begin(until, since, FIRST, OVERLAP, began - keep if keep else _ALWAYS)
        messages = takewhile(lambda message: message.created_at >= start, twilio.messages.list())
        settled = dropwhile(lambda message: message.created_at > began - SETTLED, messages)
        found = publish(log, _told(settled, warehouse), "twilio")
        remember(log, warehouse, name, run_id, {"until": began.isoformat()})
        return found


def _told(messages: Iterable[Message], warehouse: Warehouse) -> Iterator[Event]:
    coming = iter(messages)
    while portion := list(islice(coming, PORTION)):
        keys = _operation_keys([message.sid for message in portion], warehouse)
        for message in portion:
            yield from _events(message, keys.get(message.sid))


def _events(message: Message, operation_key: str | None) -> list[Event]:
    """What the webhook would have told; it has no time of its own, but here there is one."""
    inbound = message.direction == "inbound"
    told = {
        "MessageSid": message.sid,
        "SmsStatus" if inbound else "MessageStatus": message.status,
        "From": message.sender,
        "To": message.to,
        "MessagingServiceSid": message.service,
        "ErrorCode": message.error_code,
        "Body": message.body if inbound else None,
    }
    form = urlencode({name: value for name, value in told.items() if value is not None}).encode()
    url = f"?{urlencode({'operation_key': operation_key})}" if operation_key else ""
    at = message.sent_at or message.created_at
    return [event.model_copy(update={"timestamp": at}) for event in twilio_events(Hook(url, _FORM, form))]


def _operation_keys(sids: Sequence[str], warehouse: Warehouse) -> dict[str, str]:
    """The keys that stand in the webhooks' URLs, which the list does not tell: as far as the table knows them."""
    marks = ", ".join("?" * len(sids))
    known = f"WHERE operation_key IS NOT NULL AND message_sid IN ({marks})"
    found = warehouse.rows("sms_messages", ("message_sid", "operation_key"), known, sids)
    return {str(sid): str(key) for sid, key in found}
