"""Dagster resources: thin, typed wrappers that hand out integrations."""

from __future__ import annotations

from resources.event_log import EventLogResource
from resources.google_calendar import GoogleCalendarResource
from resources.outlook import OutlookResource
from resources.progress import RunProgress
from resources.sendgrid import SendGridResource
from resources.stripe import StripeResource
from resources.twilio import TwilioResource
from resources.warehouse import WarehouseResource


def default_resources() -> dict[str, object]:
    """The resources by the names that assets, jobs and sensors ask for; configured by the environment."""
    return {
        "event_log": EventLogResource(),
        "google_calendar": GoogleCalendarResource(),
        "outlook": OutlookResource(),
        "progress": RunProgress(),
        "sendgrid": SendGridResource(),
        "stripe": StripeResource(),
        "twilio": TwilioResource(),
        "warehouse": WarehouseResource(),
    }
