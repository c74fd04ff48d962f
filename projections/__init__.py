"""What landed events do to tables: one module a provider. Knows nothing of Dagster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from events.envelope import Event
from projections import calendars, sendgrid, stripe, twilio
from projections.tables import Row

PROJECTIONS: Mapping[str, Callable[[Event], Sequence[Row]]] = {
    "google": calendars.project,
    "outlook": calendars.project,
    "sendgrid": sendgrid.project,
    "stripe": stripe.project,
    "twilio": twilio.project,
}
"""By the first part of an event's type, behind `pivotal.` if ours. A projection is a pure function of one event."""

PATTERNS = (*calendars.PATTERNS, *sendgrid.PATTERNS, *stripe.PATTERNS, *twilio.PATTERNS)
"""The types of the events that become rows; others, mails that came in among them, are not even read."""

TABLES: Sequence[type[Row]] = (
    stripe.Subscription,
    stripe.Invoice,
    sendgrid.EmailMessage,
    sendgrid.EmailSuppression,
    twilio.SmsMessage,
    twilio.SmsSuppression,
    calendars.CalendarEvent,
)
"""The tables that landed events maintain."""


def project(event: Event) -> Sequence[Row]:
    """The rows that an event tells of.

    Raises:
        ProjectionError: The event is not what its type promises.
    """
    return PROJECTIONS[event.type.removeprefix("pivotal.").partition(".")[0]](event)
