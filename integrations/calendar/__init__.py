"""Calendars: one interface (`Calendars`), two services (`GoogleCalendar`, `Outlook`), one model of events."""

from __future__ import annotations

from integrations.calendar.errors import CalendarConflictError, CalendarIntegrationError
from integrations.calendar.google import GoogleCalendar, GoogleCalendarConfig
from integrations.calendar.model import (
    PRIMARY,
    Attendee,
    Calendar,
    CalendarEvent,
    Calendars,
    Changes,
    Draft,
    NotExpressibleError,
    Watch,
)
from integrations.calendar.outlook import Outlook, OutlookConfig

__all__ = [
    "PRIMARY",
    "Attendee",
    "Calendar",
    "CalendarConflictError",
    "CalendarEvent",
    "CalendarIntegrationError",
    "Calendars",
    "Changes",
    "Draft",
    "GoogleCalendar",
    "GoogleCalendarConfig",
    "NotExpressibleError",
    "Outlook",
    "OutlookConfig",
    "Watch",
]
