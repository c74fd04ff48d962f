"""Messages of whose sending nobody knows the end: an answer got lost, or an earlier run did.

Such a message is looked for among those that Twilio took in the time in question, to the same number and from the same
sender: if exactly one of them has its text, that is it. If there are none at all, it was not taken. Anything else may
be it or not, also one with another text: Twilio rewrites some.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import count
from typing import TYPE_CHECKING

from integrations.http import Response
from integrations.twilio.client import Client
from integrations.twilio.message import Message, Sms
from integrations.twilio.reading import pages

if TYPE_CHECKING:
    from events.log import EventLog

Windows = Callable[[Response], Sequence[tuple[datetime, datetime]]]
"""The times in question, by the clock that a page of Twilio's tells."""

_SLACK = timedelta(seconds=2)
"""Twilio tells time in whole seconds, and not all of its machines the same."""

_SKEW = timedelta(minutes=1)
"""How far our clocks may be from Twilio's."""

_LONGEST = timedelta(minutes=15)
"""How long a run may be at one message: its tries, their timeouts, and looking for them."""


class AmbiguousError(Exception):
    """There are messages that may be the one or not.

    Args:
        sids: Which ones.
    """

    def __init__(self, sids: Sequence[str]) -> None:
        super().__init__(", ".join(sids))


def look_for(
    client: Client, sms: Sms, windows: Windows, others: Collection[str], pauses: Sequence[float]
) -> Message | None:
    """The message that a try has left behind; None if it certainly left none.

    Args:
        client: Asks Twilio.
        sms: What was to be sent.
        windows: When it may have been taken.
        others: SIDs of messages that are known to be others.
        pauses: Seconds before each look; a message may be listed late.

    Raises:
        AmbiguousError: It may be any of several, or one that Twilio has rewritten.
        TwilioIntegrationError: Twilio cannot be asked.
    """
    for pause in pauses:
        time.sleep(pause)
        taken = (message for message in _taken(client, sms.to, windows) if message.sid not in others)
        near = [message for message in taken if message.is_from(sms)]
        same = [message for message in near if message.says(sms)]
        if len(same) == 1:
            return same[0]
        if near:
            raise AmbiguousError([message.sid for message in same or near])
    return None


def begin(log: EventLog, key: str) -> list[datetime]:
    """Tells the event log that a run begins to send, before it does.

    Args:
        log: The event log.
        key: The operation's key.

    Returns:
        When earlier runs began the same: one of them may have sent it and died before it could tell.

    Raises:
        EventLogError: It cannot be told; nothing must be sent.
    """
    from events.cause import new_event

    began: list[datetime] = []
    for number in count():
        its = f"{key}/{number}"
        event = new_event("pivotal.twilio.sms.begun", ("operation", key), {}, source="pivotal/twilio", dedupe_key=its)
        (new,) = log.publish([event])
        if new:
            return began
        began += [recorded.event.timestamp for recorded in log.find(its)]
    raise AssertionError("counting does not end")


def since(began: float) -> Windows:
    """From a moment of this process (`time.monotonic`) on, by Twilio's clock."""

    def windows(answer: Response) -> Sequence[tuple[datetime, datetime]]:
        told = answer.headers.get("Date")
        now = parsedate_to_datetime(told).astimezone(UTC) if told else datetime.now(UTC)
        return [(now - timedelta(seconds=time.monotonic() - began) - _SLACK, datetime.max.replace(tzinfo=UTC))]

    return windows


def while_running(began: Sequence[datetime]) -> Windows:
    """While runs that began then may have been at it."""
    return lambda _: [(at - _SKEW, at + _LONGEST) for at in began]


def are_over(began: Sequence[datetime]) -> bool:
    """Whether the last of these runs cannot be at it any more."""
    return max(began) + _LONGEST < datetime.now(UTC)


def _taken(client: Client, to: str, windows: Windows) -> Iterator[Message]:
    spans: Sequence[tuple[datetime, datetime]] = ()
    for answer, page in pages(client, {"To": to}):
        spans = spans or windows(answer)
        yield from (message for message in page if any(start <= message.created_at <= end for start, end in spans))
        if all(message.created_at < min(spans)[0] for message in page):  # latest first
            return
