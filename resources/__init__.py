"""Dagster resources: thin, typed wrappers that hand out integrations."""

from __future__ import annotations

from resources.event_log import EventLogResource
from resources.google_calendar import GoogleCalendarResource
from resources.outlook import OutlookResource
from resources.progress import RunProgress
from resources.s3 import S3Resource
from resources.sendgrid import SendGridResource
from resources.step_outputs import bucket_io_manager
from resources.stripe import StripeResource
from resources.twilio import TwilioResource
from resources.warehouse import WarehouseResource
from settings import get_settings


def default_resources() -> dict[str, object]:
    """The resources by the names that assets, jobs and sensors ask for; configured by the environment."""
    return {
        "event_log": EventLogResource(),
        "google_calendar": GoogleCalendarResource(),
        "outlook": OutlookResource(),
        "progress": RunProgress(),
        "s3": S3Resource(),
        "sendgrid": SendGridResource(),
        "stripe": StripeResource(),
        "twilio": TwilioResource(),
        "warehouse": WarehouseResource(),
        **({"io_manager": bucket_io_manager} if get_settings().step_outputs else {}),
    }
