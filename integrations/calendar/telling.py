"""What is told of a change in a calendar: which event, never what it says or whose it is."""

from __future__ import annotations

from integrations.calendar.model import CalendarEvent
from integrations.calls import Calls, idempotency_key


def tell(calls: Calls, what: str, of: CalendarEvent | tuple[str, str], key: str | None) -> None:
    """Tells of a change that is made.

    Args:
        calls: Whose event log.
        what: `created`, `updated` or `deleted`.
        of: The event as it is now, or the ids of calendar and event.
        key: The same for the same doing; None: a deletion, which is told once for an event.
    """
    calendar_id, event_id = of if isinstance(of, tuple) else (of.calendar_id, of.id)
    # A calendar's id may be its owner's address; groups' and Outlook's are not.
    private = "@" in calendar_id and not calendar_id.endswith(".calendar.google.com")
    facts: dict[str, object] = {"calendar": None if private else calendar_id}
    if isinstance(of, CalendarEvent):
        facts |= {"series": of.series_id, "recurring": bool(of.draft.recurrence), "all_day": of.draft.all_day}
    once = key or idempotency_key(f"{calls.service}.events.{what}", f"{calendar_id}/{event_id}")
    calls.announce(f"event.{what}", ("calendar_event", event_id), facts, key=once)
