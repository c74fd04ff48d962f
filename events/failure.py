"""What is told of an event that could not be handled: the error and its traceback without secrets, and the alert."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator

from pydantic import SecretStr

from events.cause import Cause, caused_by
from events.envelope import Event
from events.log import PROJECTIONS, Recorded
from events.typed import EventData
from settings import get_settings

SOURCE = "pivotal/events"

_LONGEST = 20_000
"""Characters of a traceback that are kept: its end."""

_SHORTEST = 6
"""Characters that a secret has, at least: what is shorter stands in a text by chance."""

# Whatever repeats, and may then not be what is looked for, is bounded: the time grows with the text, not its square.
_SECRETS = re.compile(
    r"(?P<kept>://)[^/\s@]{1,300}@"
    r"|(?P<named>(?:(?:api|access|private)[_-]?key|token|secret|passw|credential|signature)[\w-]{0,20}[\"']?\s{0,2}[=:]\s{0,2}[\"']?)[^\s\"'&,;)}]+"
    r"|(?P<scheme>\b(?:Bearer|Basic)\s+)[\w+/=.~-]+"
    r"|\b(?:sk|rk)_(?:live|test)_\w+|\bwhsec_[\w+/=]+|\bSG\.[\w.-]+|\bAKIA[0-9A-Z]+",
    re.IGNORECASE,
)


class DeadLettered(
    EventData,
    type="pivotal.event.dead_lettered",
    version=2,
    upcasts={1: lambda data: {"subscription": PROJECTIONS, **data}},
):
    """An event that a subscription has given up.

    Args:
        subscription: The subscription's name; `projections`: the tables of landed events.
        sequence: The event's place in the log.
        type: Its type.
        error: Why, in one line.
    """

    subscription: str
    sequence: int
    type: str
    error: str


def alert(subscription: str, recorded: Recorded, error: str, *, burial: str) -> Event:
    """That an event is a dead letter of a subscription.

    Args:
        subscription: Whose.
        recorded: The event.
        error: Why: the last line is told.
        burial: Tells this time from others; what is replayed may die again, and is alerted of again then.
    """
    event = recorded.event
    data = DeadLettered(subscription=subscription, sequence=recorded.sequence, type=event.type, error=last_line(error))
    with caused_by(Cause.of(event)):
        # Not by the event's id, which is unique for its source only.
        return data.event(("event", event.id), source=SOURCE, dedupe_key=f"{subscription}/{recorded.sequence}/{burial}")


def told(error: BaseException) -> str:
    """An error with its traceback, as it may be shown: without secrets."""
    return without_secrets("".join(traceback.format_exception(error)))[-_LONGEST:]


def last_line(error: str) -> str:
    """What an error with its traceback comes to; a hint below it is left out."""
    return [line for line in error.rstrip().split("\n") if not line.startswith("  hint: ")][-1]


def without_secrets(text: str) -> str:
    """The text, with *** where the settings' secrets stand, and what looks like one."""
    for secret in _known():
        text = text.replace(secret, "***")
    return _SECRETS.sub(lambda found: f"{found['kept'] or found['named'] or found['scheme'] or ''}***", text)


def _known() -> Iterator[str]:
    settings = get_settings()
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            parts = map(str.strip, value.get_secret_value().split(","))
            yield from (part for part in parts if len(part) >= _SHORTEST)
